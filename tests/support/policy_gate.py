"""
Who is allowed what: a door before Secrets Manager that holds to the policies of the template, as IAM does.

The stand-in answers whoever asks.  This one lets through what a policy allows, and answers the rest as AWS
would.
"""

import http.client
import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Permission:
    """One action on one secret."""

    action: str
    secret: str


def permissions(documents: Iterable[Mapping[str, Any]], names: Mapping[str, str]) -> frozenset[Permission]:
    """
    Return what policies allow on secrets.

    Args:
        documents: Policy documents, evaluated.

        names: What a resource in them stands for: an id of a secret.
    """
    statements = [statement for document in documents for statement in document["Statement"]]
    return frozenset(
        Permission(action, names[resource])
        for statement in statements
        if statement["Effect"] == "Allow"
        for action in _listed(statement["Action"])
        if action.startswith("secretsmanager:")
        for resource in _listed(statement["Resource"])
    )


def _listed(one_or_more: Any) -> Sequence[Any]:
    return one_or_more if isinstance(one_or_more, list) else [one_or_more]


class PolicyGate:
    """
    A Secrets Manager for somebody who may do only so much.

    Attributes:
        url: Where it is.

        used: What was allowed and asked for.
    """

    def __init__(self, upstream_url: str, allowed: Iterable[Permission], secrets: Iterable[str]) -> None:
        self._upstream = urlsplit(upstream_url).netloc
        self._allowed = frozenset(allowed)
        self._secrets = tuple(secrets)
        self.used: set[Permission] = set()
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = gate.answer(dict(self.headers.items()), body)
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.1")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        """Pass on what is allowed."""
        operation = headers["X-Amz-Target"].partition(".")[2]
        asked = Permission(f"secretsmanager:{operation}", self._secret_in(json.loads(body)))
        if asked not in self._allowed:
            message = (
                f"User: somebody is not authorized to perform: {asked.action} on resource: {asked.secret}"
            )
            return 400, json.dumps({"__type": "AccessDeniedException", "message": message}).encode()
        self.used.add(asked)
        connection = http.client.HTTPConnection(self._upstream, timeout=10)
        try:
            connection.request("POST", "/", body, {**headers, "Host": self._upstream, "Connection": "close"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _secret_in(self, request: Mapping[str, Any]) -> str:
        # An ARN ends with the name and six characters of chance.
        given = request["SecretId"].partition(":secret:")[2][:-7] or request["SecretId"]
        return next((name for name in self._secrets if name == given), given)

    @contextmanager
    def opened(self) -> Iterator["PolicyGate"]:
        """Serve for as long as a block."""
        serving = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        serving.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            serving.join()
            self._server.server_close()
