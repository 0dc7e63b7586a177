"""How does LocalStack run on this machine, without a container, and end with whoever wanted it?"""

import contextlib
import json
import os
import shutil
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from ledger_db.errors import ConfigurationError, ServerUnreachable
from ledger_db.sandbox.ports import HOST, free_port
from ledger_db.sandbox.processes import end, spawn, wait_until

if TYPE_CHECKING:
    import subprocess

PROJECT: Final = Path(__file__).resolve().parents[1]
READY_HOOKS: Final = PROJECT / "localstack" / "ready.d"
PYTHON: Final = PROJECT / "build" / "localstack" / "bin" / "python"

_START_SECONDS: Final = 120.0
_END_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 0.2
_STATUS_SECONDS: Final = 5.0
_ERRORS_SHOWN: Final = 3


class LocalStack:
    """
    LocalStack as a process of this machine, for as long as a ``with`` block.

    It listens on the loopback address only and keeps everything in one folder.  When this process ends, in
    whatever way, Linux ends it too, and the functions that it runs end with it.  Start it in the main thread.

    Args:
        folder: An empty or new one; whoever made it removes it.

        python: Of the virtual environment with LocalStack in it.

        port: Where it listens; a free one if None.

        environment: Further variables, for LocalStack and for its hooks.

        hooks: Folder with what it runs when it is ready; nothing if None.
    """

    def __init__(
        self,
        folder: Path,
        *,
        python: Path = PYTHON,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
        hooks: Path | None = None,
    ) -> None:
        self.folder = folder
        self.port = free_port() if port is None else port
        self.url = f"http://{HOST}:{self.port}"
        self._python = python
        self._environment = dict(environment or {})
        self._hooks = hooks
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def environment(self) -> dict[str, str]:
        """What leads boto3 to it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "localstack",
            "AWS_SECRET_ACCESS_KEY": "localstack",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def log_file(self) -> Path:
        """What LocalStack writes."""
        return self.folder / "localstack.log"

    @property
    def process_id(self) -> int:
        """What the system calls the process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """
        Start it; return when it is ready and its hooks have run.

        Raises:
            ConfigurationError: It is not installed.

            ServerUnreachable: It did not start, or a hook failed; the message has the last lines of its log.
        """
        if not self._python.exists():
            raise ConfigurationError(f"{self._python} is not there; install LocalStack with: make localstack")
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._hooks is not None:
            shutil.copytree(self._hooks, self.folder / "etc" / "localstack" / "init" / "ready.d")
        self._process = spawn(
            # -P: the folder localstack of this project is not the package that is meant.
            ["env", "-i", *self._variables(), self._python, "-P", "-m", "localstack.runtime.main"],
            self.folder,
            name="localstack",
            death_signal=signal.SIGKILL,
        )
        try:
            wait_until(
                self._is_ready,
                self._process,
                what="LocalStack",
                log_file=self.log_file,
                timeout_seconds=_START_SECONDS,
                give_up=threading.Event(),
            )
            self._check_hooks()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End it.  May be called again."""
        if self._process is not None:
            end(self._process, signal.SIGTERM, timeout_seconds=_END_SECONDS)
            self._process = None

    def _variables(self) -> list[str]:
        """Return what it is configured with: no secret, and nothing else of the caller's."""
        settings = {
            "PATH": os.environ.get("PATH", os.defpath),
            # Everything that it or a library of it caches stays in the folder, and goes with it.
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "FILESYSTEM_ROOT": str(self.folder),
            # Else, in a container, it takes the folders of the machine for its own and empties them.
            "OVERRIDE_IN_DOCKER": "0",
            "GATEWAY_LISTEN": f"{HOST}:{self.port}",
            "GATEWAY_SERVER": "loopback",
            "LAMBDA_RUNTIME_EXECUTOR": "process",
            # It calls nobody: no events, no certificate from the network, no name server of its own.
            "DISABLE_EVENTS": "1",
            "SKIP_SSL_CERT_DOWNLOAD": "1",
            "DNS_ADDRESS": "0",
            # The newer engine fails over a resource that is not made, if its condition is false and it names
            # another one that is not made.
            "PROVIDER_OVERRIDE_CLOUDFORMATION": "engine-legacy",
            **self._environment,
        }
        return [f"{name}={value}" for name, value in settings.items()]

    def _is_ready(self) -> bool:
        # Each question is a line in its log, and a request that the hooks wait behind.
        time.sleep(_LOOK_SECONDS)
        # /_localstack/health answers earlier, when the hooks still run.
        status = self._status()
        return status is not None and bool(status["completed"]["READY"])

    def _check_hooks(self) -> None:
        status = self._status()
        failed = [
            Path(script["name"]).name
            for script in (status or {}).get("scripts", [])
            if script["state"] != "SUCCESSFUL"
        ]
        if failed:
            log = self.log_file.read_text(errors="replace").splitlines()
            errors = [line for line in log if " ERROR " in line]
            raise ServerUnreachable(
                f"LocalStack is up, but {', '.join(failed)} failed in it, so nothing was left running; "
                f"its log has: {' | '.join(errors[-_ERRORS_SHOWN:])}"
            )

    def _status(self) -> dict[str, Any] | None:
        # Without proxies: a proxy is not asked for what is on this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with contextlib.suppress(OSError, urllib.error.URLError, ValueError):
            with opener.open(f"{self.url}/_localstack/init", timeout=_STATUS_SECONDS) as answer:
                status: dict[str, Any] = json.load(answer)
            return status
        return None
