"""Does a connection break in time whose server has vanished without a word?"""

import io
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

from ledger_db import Settings
from ledger_db.connections.line import second_end
from ledger_db.sandbox import Sandbox
from ledger_db.transactions.meaning import Meaning, meaning_of
from tests.support.any_driver import Client, client_of
from tests.support.namespace import Namespace, network_namespace
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

SILENCE_SECONDS = 3.0
# The kernel asks once more than it should; the rest is for a busy machine.  Without a deadline: minutes.
AT_MOST_SECONDS = 10 * SILENCE_SECONDS


@pytest.fixture
def space() -> Iterator[Namespace]:
    """A network that a server can vanish from."""
    with network_namespace() as space:
        yield space


@pytest.fixture
def far_client(driver: str, direct: Settings, box: Sandbox, space: Namespace) -> Iterator[Client]:
    """A client of a server in there, with a connection in its pool."""
    with Proxy(box.postgres.host, box.postgres.port, listener=space.listen()) as door:
        known = {
            **direct.model_dump(exclude_unset=True),
            "database_host": space.address,
            "database_port": door.port,
            "database_sslmode": "disable",
            "silence_timeout_seconds": SILENCE_SECONDS,
        }
        with client_of(driver, Settings(**known), retry_patience_seconds=30) as client:
            client.begin(one)
            yield client


def one(session: Session) -> Any:
    """Ask for a row."""
    return session.execute(text("SELECT 1")).scalar()


def test_an_idle_connection_breaks_in_time(far_client: Client, space: Namespace) -> None:
    """A statement that is sent into the silence ends as lost, its place is free, and the next one works."""
    space.vanish()
    began = time.monotonic()
    with pytest.raises(Exception) as lost:  # noqa: PT011 - its meaning is looked at
        far_client.begin(one)
    took = time.monotonic() - began
    (away,) = far_client.db.probe(max_age_seconds=0).servers
    space.come_back()

    assert took < AT_MOST_SECONDS
    assert meaning_of(lost.value) is Meaning.LOST
    assert not away.ok
    assert far_client.run(one) == 1
    eventually(lambda: far_client.db.probe(max_age_seconds=0).ok, "the probe sees it again")


def test_a_busy_connection_breaks_in_time(far_client: Client, space: Namespace) -> None:
    """A statement whose answer never comes ends as lost, and its place is free."""
    later = threading.Timer(0.5, space.vanish)
    later.start()
    began = time.monotonic()
    with pytest.raises(Exception) as lost:  # noqa: PT011 - its meaning is looked at
        far_client.begin(lambda session: session.execute(text("SELECT pg_sleep(1)")))
    took = time.monotonic() - began
    space.come_back()

    assert took < AT_MOST_SECONDS
    assert meaning_of(lost.value) is Meaning.LOST
    assert far_client.run(one) == 1


@pytest.mark.parametrize("driver", ["asyncpg"])
def test_what_waits_until_it_may_write_on_breaks_in_time(far_client: Client, space: Namespace) -> None:
    """A COPY ends as lost, although asyncpg would not hear of it: it waits for neither answer nor error."""

    def copy(session: Session) -> None:
        driver: Any = session.connection().connection.driver_connection
        space.vanish()
        await_only(driver.copy_to_table("anything", source=io.BytesIO(bytes(50_000_000))))

    began = time.monotonic()
    with pytest.raises(Exception) as lost:  # noqa: PT011 - its meaning is looked at
        far_client.begin(copy)
    took = time.monotonic() - began
    space.come_back()

    assert took < AT_MOST_SECONDS
    assert meaning_of(lost.value) is Meaning.LOST
    assert far_client.run(one) == 1


def test_a_statement_may_take_longer_than_the_silence(driver: str, direct: Settings) -> None:
    """A server that works is not silent: its kernel answers, however long a statement takes."""
    with client_of(driver, direct, silence_timeout_seconds=1) as client:
        assert client.begin(lambda session: session.execute(text("SELECT 7, pg_sleep(3)")).scalar()) == 7


def test_every_drivers_socket_is_told(driver: str, direct: Settings) -> None:
    """The kernel has the setting's figures; where asyncpg's socket is is private, and may move."""

    def options(session: Session) -> list[int]:
        line = second_end(session.connection().connection)
        assert line is not None, "where is this driver's socket now? see ledger_db/connections/line.py"
        names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
        with line:
            assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            return [line.getsockopt(socket.IPPROTO_TCP, name) for name in names]

    with client_of(driver, direct) as client:
        assert client.begin(options) == [5, 3, 3, 15_000]
    with client_of(driver, direct, silence_timeout_seconds=30) as client:
        assert client.begin(options) == [10, 6, 3, 30_000]
