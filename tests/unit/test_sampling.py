"""Does a drill count what the servers see, and does it say when it could not?"""

import time
from types import TracebackType
from typing import Self

import psycopg2
import pytest

from ledger_db.drill import sampling
from ledger_db.drill.sampling import ConnectionCount, Sampler


class ScriptedServer:
    """A PostgreSQL that counts as it is told; an error in the script breaks the connection."""

    def __init__(self, *script: int | Exception) -> None:
        self.script = list(script)
        self.logins = 0
        self.open = 0

    def connect(self) -> "ScriptedConnection":
        """Log in."""
        self.logins += 1
        self.open += 1
        return ScriptedConnection(self)


class ScriptedConnection:
    """A connection to it, and the cursor of that connection."""

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def cursor(self) -> Self:
        """Return the cursor."""
        return self

    def execute(self, query: str, parameters: tuple[object, ...]) -> None:
        """Fail if the script says so."""
        if isinstance(self.server.script[0], Exception):
            raise self.server.script.pop(0)  # type: ignore[misc]

    def fetchone(self) -> tuple[object]:
        """Return the next count; the last one for ever."""
        return (self.server.script.pop(0) if len(self.server.script) > 1 else self.server.script[0],)

    def close(self) -> None:
        """Log out."""
        self.server.open -= 1


@pytest.fixture(autouse=True)
def no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a backend be gone at once."""
    monkeypatch.setattr(sampling, "_SETTLE_SECONDS", 0.0)


def test_one_login_serves_all_counts() -> None:
    """Watching a server does not load it with logins."""
    server = ScriptedServer(3, 4)
    count = ConnectionCount(server.connect, ["app"])

    assert [count.read(), count.read()] == [3, 4]
    assert server.logins == 1


def test_a_connection_on_its_way_out_is_not_one_too_many() -> None:
    """A backend needs a moment to go; the pool has not exceeded its limit for that."""
    server = ScriptedServer(11, 10)

    assert ConnectionCount(server.connect, ["app"]).read(limit=10) == 10


def test_a_limit_that_stays_exceeded_is_reported() -> None:
    """One connection too many that does not go away is one too many."""
    server = ScriptedServer(12, 11)

    assert ConnectionCount(server.connect, ["app"]).read(limit=10) == 11


def test_a_server_that_was_away_is_counted_again() -> None:
    """A restart of PostgreSQL costs a sample, not the rest of them."""
    server = ScriptedServer(psycopg2.OperationalError("server closed the connection"), 5)
    count = ConnectionCount(server.connect, ["app"])

    assert [count.read(), count.read()] == [None, 5]
    assert server.logins == 2

    count.close()
    count.close()
    assert server.open == 0


def no_secrets_manager() -> int:
    """Fail as a Secrets Manager that was stopped."""
    raise ConnectionRefusedError


def test_samples_are_handed_over_once() -> None:
    """Every sample belongs to one stretch of time, and nothing is kept for ever."""
    server = ScriptedServer(2)
    sampler = Sampler(
        ConnectionCount(server.connect, ["app"]), lambda: 7, connections_limit=10, every_seconds=3600
    )
    sampler.start()
    sampler.stop()
    sampler.stop()

    assert sampler.take(until=0.0) == []
    assert [
        (sample.connections, sample.secret_reads) for sample in sampler.take(until=time.monotonic() + 1)
    ] == [(2, 7)]
    assert sampler.take(until=float("inf")) == []
    assert server.open == 0


def test_connections_are_counted_while_secrets_manager_is_away() -> None:
    """One server that does not answer does not blind the drill to the other."""
    sampler = Sampler(
        ConnectionCount(ScriptedServer(2).connect, ["app"]),
        no_secrets_manager,
        connections_limit=10,
        every_seconds=3600,
    )
    sampler.start()
    sampler.stop()

    assert [(sample.connections, sample.secret_reads) for sample in sampler.take(until=float("inf"))] == [
        (2, None)
    ]
