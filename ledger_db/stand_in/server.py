"""
The Secrets Manager stand-in: AWS's protocol over HTTP, for real boto3 clients.

    python -m ledger_db.stand_in.server --state FILE --port 0

prints its URL as the first line, and serves until it is interrupted.  What it does not do: check signatures,
enforce policies, replicate, encrypt.  It listens on the loopback address unless told otherwise.
"""

import argparse
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from ledger_db.errors import ConfigurationError
from ledger_db.event_log import EventLog
from ledger_db.stand_in.application import SecretsManagerApplication
from ledger_db.stand_in.faults import Fault
from ledger_db.stand_in.http_server import LocalHTTPServer
from ledger_db.stand_in.rotations import RetrySchedule, Rotations, Rotator
from ledger_db.stand_in.store import SecretStore

log: EventLog = EventLog(__name__)

_LONGEST_STEP_SECONDS = 10.0


class SecretsManagerStandIn:
    """
    A Secrets Manager of one's own, at `url`.

    It can be stopped and started again, at the same port and with the same secrets, as often as one likes.

    Args:
        state: File that keeps the secrets across processes; None keeps them in memory.

        host: The address to listen on.

        port: The port; 0 for a free one.

        region: Part of every ARN.

        rotators: Rotation functions by ARN, for RotateSecret.

        schedule: How long a failing rotation is tried.

    Raises:
        ConfigurationError: The state file is damaged or not one of ours.
    """

    def __init__(
        self,
        *,
        state: Path | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        region: str = "us-east-1",
        rotators: Mapping[str, Rotator] | None = None,
        schedule: RetrySchedule | None = None,
    ) -> None:
        store = SecretStore(region, state)
        self._rotations = Rotations(store, rotators, schedule=schedule)
        self._application = SecretsManagerApplication(store, self._rotations)
        self._server = LocalHTTPServer(self._application, host=host, port=port)

    @property
    def url(self) -> str:
        """The endpoint for ``AWS_ENDPOINT_URL_SECRETS_MANAGER``; known once it has been started."""
        return self._server.url

    def start(self) -> None:
        """Serve in the background; connections are accepted from the moment that this returns."""
        self._application.interrupt(on=False)
        self._server.start()

    def stop(self) -> None:
        """
        Refuse connections and wait for the threads; the secrets stay.

        A rotation in the background ends after the step that it is in; the next RotateSecret takes it up.
        """
        # Rotations first, while it still serves: a step in the middle needs its answers to end.
        if not self._rotations.stop(_LONGEST_STEP_SECONDS):
            log.warning("rotation.left_running", waited_seconds=_LONGEST_STEP_SECONDS)
        self._application.interrupt(on=True)
        self._server.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def register(self, arn: str, rotator: Rotator) -> None:
        """Make *rotator* what RotateSecret calls for the function *arn*."""
        self._rotations.register(arn, rotator)

    def wait_until_idle(self, timeout_seconds: float) -> bool:
        """Wait until no rotation is in the background; False if one still is after *timeout_seconds*."""
        return self._rotations.wait_until_idle(timeout_seconds)

    def inject(self, *faults: Fault) -> None:
        """Let things go wrong, behind those that already do."""
        self._application.faults.inject(*faults)

    def clear_faults(self) -> None:
        """Let nothing go wrong any more."""
        self._application.faults.replace(())

    def calls(self) -> dict[str, int]:
        """How often each operation was asked for, successful or not."""
        return self._application.calls()


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; the first line on standard output is the URL."""
    parser = argparse.ArgumentParser(prog="python -m ledger_db.stand_in.server", description=__doc__)
    parser.add_argument("--state", type=Path, help="file that keeps the secrets")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--region", default="us-east-1")
    options = parser.parse_args(arguments)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        stand_in = SecretsManagerStandIn(
            state=options.state, host=options.host, port=options.port, region=options.region
        )
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    with stand_in:
        sys.stdout.write(f"{stand_in.url}\n")
        sys.stdout.flush()
        ended.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
