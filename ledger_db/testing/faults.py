"""
What can go wrong with the servers of a sandbox, in the words of those who are on call.

Each fault lasts until it is ended here or the test is over, whichever is first.
"""

import uuid
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from ledger_db.rotation.steps import STEPS
from ledger_db.sandbox.rotate import SandboxRotator
from ledger_db.stand_in import faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ledger_db.sandbox import Sandbox, Strategy
    from ledger_db.sandbox.servers import PostgresServer, RedisServer, SecretsManagerServer

_END_SESSIONS = """
SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


class Faults:
    """
    A switchboard for one sandbox.

    Args:
        sandbox: A running one.
    """

    __module__ = "ledger_db.testing"

    def __init__(self, sandbox: "Sandbox") -> None:
        self.secrets_manager: SecretsManagerFaults = SecretsManagerFaults(sandbox.secrets_manager)
        self.postgres: ServerFaults = ServerFaults(
            sandbox.postgres, partial(_kill_postgres_sessions, sandbox.postgres)
        )
        self.redis: ServerFaults = ServerFaults(sandbox.redis, partial(_kill_redis_sessions, sandbox.redis))
        self._sandbox = sandbox
        self._stuck: Strategy | None = None

    def rotate_database(self, strategy: "Strategy" = "single-user", window_seconds: float = 0.0) -> str:
        """Rotate PostgreSQL's credentials, from the first step to the last; as `Sandbox.rotate_database`."""
        return self._sandbox.rotate_database(strategy, window_seconds)

    def rotate_redis(self, window_seconds: float = 0.0) -> str:
        """Rotate Redis's password, from the first step to the last; as `Sandbox.rotate_redis`."""
        return self._sandbox.rotate_redis(window_seconds)

    def stuck_rotation(self, strategy: "Strategy" = "single-user") -> "StuckRotation":
        """
        Begin a rotation of PostgreSQL's credentials and leave it after setSecret.

        The server has the new password by then, and AWSCURRENT the old one.

        Args:
            strategy: As in `rotate_database`.
        """
        self._stuck = strategy
        return StuckRotation(self._sandbox, strategy)

    def heal(self) -> None:
        """End every fault, start what is down, and bring rotations that are stuck to a good end."""
        with ExitStack() as healing:
            # Each is tried whatever becomes of the others; last in, first out.  A repair needs all servers.
            healing.callback(self._repair)
            healing.callback(self.redis.start)
            healing.callback(self.postgres.start)
            healing.callback(self.secrets_manager.heal)

    def _repair(self) -> None:
        # With the strategy that it began with: the other one would take what is pending for a mistake.
        if self._stuck is not None:
            with _rotator(self._sandbox, self._stuck) as rotator:
                rotator.repair(self._sandbox.database_secret_id)
            self._stuck = None


class SecretsManagerFaults:
    """
    Secrets Manager is there, but not well.

    Args:
        server: The stand-in.
    """

    def __init__(self, server: "SecretsManagerServer") -> None:
        self._server = server
        self._is_down = False

    def down(self) -> None:
        """Connections are refused."""
        self._is_down = True
        self._server.stop()

    def failing(self) -> None:
        """Every answer is an HTTP 500."""
        self._server.inject(faults.unavailable(times=None))

    def throttled(self) -> None:
        """Every answer is that there are too many requests."""
        self._server.inject(faults.throttled(times=None))

    def slow(self, seconds: float) -> None:
        """Every answer is right, and late."""
        self._server.inject(faults.slow(seconds))

    def denied(self, *, stage: str | None = None) -> None:
        """
        Access is denied.

        Args:
            stage: To versions with this label only, ``AWSPENDING`` for example; to all if None.
        """
        self._server.inject(faults.access_denied("GetSecretValue", stage=stage))

    def rubbish(self) -> None:
        """Every answer is an HTTP 200 with a body that is no JSON."""
        self._server.inject(faults.rubbish(times=None))

    def heal(self) -> None:
        """Answer as usual."""
        if self._is_down:
            self._server.start()
            self._is_down = False
        self._server.clear_faults()


class ServerFaults:
    """
    PostgreSQL or Redis goes down, comes back, or cuts its clients off.

    Args:
        server: Which one.

        kill_sessions: Ends what is connected to it, and counts.
    """

    def __init__(self, server: "PostgresServer | RedisServer", kill_sessions: "Callable[[], int]") -> None:
        self._server = server
        self._kill_sessions = kill_sessions
        self._is_down = False

    def stop(self) -> None:
        """Shut it down in good order: sessions end, connections are refused."""
        self._is_down = True
        self._server.stop()

    def crash(self) -> None:
        """End it as a crash would; starting it finds its data again."""
        self._is_down = True
        self._server.kill()

    def start(self) -> None:
        """Start it again with its data, on its port; nothing happens if it runs."""
        if self._is_down:
            self._server.start()
            self._is_down = False

    def restart(self) -> None:
        """Stop it and start it, as for a minor upgrade."""
        self.stop()
        self.start()

    def kill_sessions(self) -> int:
        """
        Cut off every client, as a failover does, and return when they are gone.

        Returns:
            How many there were.
        """
        return self._kill_sessions()


class StuckRotation:
    """
    A rotation of PostgreSQL's credentials between setSecret and finishSecret.

    Args:
        sandbox: Where.

        strategy: As in `Sandbox.rotate_database`.

    Attributes:
        version: The version id that AWSPENDING is on.
    """

    __module__ = "ledger_db.testing"

    def __init__(self, sandbox: "Sandbox", strategy: "Strategy") -> None:
        self.version: str = str(uuid.uuid4())
        self._sandbox = sandbox
        self._strategy = strategy
        self._do(STEPS[:2])

    def finish(self) -> None:
        """Do testSecret and finishSecret: AWSCURRENT has the new password."""
        self._do(STEPS[2:])

    def _do(self, steps: tuple[str, ...]) -> None:
        event = {"SecretId": self._sandbox.database_secret_id, "ClientRequestToken": self.version}
        with _rotator(self._sandbox, self._strategy) as rotator:
            for step in steps:
                rotator({**event, "Step": step})


@contextmanager
def _rotator(sandbox: "Sandbox", strategy: "Strategy") -> "Iterator[SandboxRotator]":
    with closing(sandbox.client()) as client:
        yield SandboxRotator(client, strategy, ca_file=sandbox.postgres.ca_file)


def _kill_postgres_sessions(server: "PostgresServer") -> int:
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(_END_SESSIONS)
        return int(cursor.fetchone()[0])


def _kill_redis_sessions(server: "RedisServer") -> int:
    admin: Any = server.connect()
    with closing(admin):
        # Named one by one: a kill without a type would take replicas and the administrator too.
        return sum(int(admin.client_kill_filter(_type=kind, skipme=True)) for kind in ("normal", "pubsub"))
