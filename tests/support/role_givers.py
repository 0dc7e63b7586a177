"""Who gives a process the credentials of a role, and how does a test let that come late, or never?"""

import datetime as dt
import http.server
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import pytest

AGENT: Final = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
METADATA: Final = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
STS: Final = "AWS_ENDPOINT_URL_STS"
ROLE: Final = "arn:aws:iam::123456789012:role/app"

_STS: Final = "<{0} xmlns='https://sts.amazonaws.com/doc/2011-06-15/'>{1}</{0}>"
_KEYS: Final = (
    "<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>A</AccessKeyId>"
    "<SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
    "<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>"
)

Answer = tuple[int, str]
Answers = Callable[[str, int], Answer]


def keys(*, minutes: float = 600) -> str:
    """What an agent, a metadata service or a process says, and how long it holds."""
    end = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=minutes)
    said = {"AccessKeyId": "A", "SecretAccessKey": "s", "Token": "t", "SessionToken": "t", "Version": 1}
    return json.dumps(said | {"Expiration": end.strftime("%Y-%m-%dT%H:%M:%SZ"), "Code": "Success"})


def sts_refuses(code: str, words: str = "not yet") -> str:
    """What STS says if it gives nothing."""
    error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{words}</Message></Error>"
    return _STS.format("ErrorResponse", f"{error}<RequestId>1</RequestId>")


def gives(path: str) -> Answer:
    """The answer of whoever gives credentials, whichever it is."""
    if path == "/":
        return 200, _STS.format("AssumeRoleWithWebIdentityResponse", _KEYS)
    if path.endswith("/api/token"):
        return 200, "token"
    return (200, "app") if path.endswith("security-credentials/") else (200, keys())


def late(times: int, status: int, body: str = "later") -> Answers:
    """Refuse so many times, then give."""
    return lambda path, count: (status, body) if count <= times else gives(path)


class Giver:
    """
    A server that answers what *answer* says to a path and the number of the request.

    Attributes:
        asked: How often so far.
    """

    def __init__(self, answer: Answers, *, port: int = 0) -> None:
        self.asked = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Write nothing."""

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                outer.asked += 1
                status, body = answer(self.path, outer.asked)
                self.send_response(status)
                self.send_header("content-length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            do_POST = do_PUT = do_GET  # noqa: N815 - its names

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


class Start(Protocol):
    """Starts servers that give credentials, or do not."""

    def __call__(self, answer: Answers, port: int = 0) -> Giver:
        """Start one."""
        ...


class Role:
    """
    A process without keys, whose credentials are those of a role.

    Args:
        monkeypatch: Changes the environment.

        folder: For files of AWS's.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._monkeypatch = monkeypatch
        self._config = folder / "config"
        self.token = folder / "token"
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        self.set(AWS_EC2_METADATA_DISABLED="true", AWS_CONFIG_FILE=str(self._config))
        self.set(AWS_SHARED_CREDENTIALS_FILE=os.devnull, AWS_REGION="us-east-1")

    def set(self, **variables: str) -> None:
        """Set variables of the environment."""
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value)

    def by(self, variable: str, url: str, *, token: str | None = "x.y.z") -> None:
        """Let *variable* name who gives the credentials, at *url*; STS for a token from a file."""
        self.set(**{variable: f"{url}/v1/credentials" if variable == AGENT else url})
        if variable == METADATA:
            self.set(AWS_EC2_METADATA_DISABLED="false")
        if variable == STS:
            self.set(AWS_ROLE_ARN=ROLE, AWS_WEB_IDENTITY_TOKEN_FILE=str(self.token))
            if token is not None:
                self.token.write_text(token)

    def by_process(self, program: str) -> None:
        """Let a program of Python's give them."""
        script = self._config.with_name("process.py")
        script.write_text(program)
        self.profile(f"credential_process = {sys.executable} {script}\n")

    def profile(self, text: str) -> None:
        """Write what ``~/.aws/config`` says of the default profile."""
        self._config.write_text(f"[default]\n{text}")


@contextmanager
def silence() -> Iterator[str]:
    """The address of one who accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address: Any = listener.getsockname()
        yield f"http://127.0.0.1:{address[1]}"


def free_port() -> int:
    """A port that nobody listens on yet."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
