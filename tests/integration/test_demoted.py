"""What becomes of a connection that refuses a write?"""

import time
from contextlib import closing

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from ledger_db.answers.postgres import takes_no_writes
from ledger_db.errors import RetriesExhausted
from ledger_db.transactions.meaning import Meaning, meaning_of
from tests.support.any_driver import client_of
from tests.support.endpoint import Endpoint
from tests.support.idle_sessions import fill_pool, pid
from tests.support.replica import TABLE, Pair
from tests.support.waiting import eventually
from tests.support.writing import attempt, insert, refuse_writes_from_now_on, settings_for

M = Meaning
POOL = 3


REFUSED_BY_A_STANDBY = [
    f"INSERT INTO {TABLE} (writer) VALUES ('somebody')",
    f"SELECT nextval('{TABLE}_id_seq')",
    f"SELECT * FROM {TABLE} FOR UPDATE",
    "CREATE TEMPORARY TABLE scratch (i int)",
    "NOTIFY anybody",
    "SELECT pg_current_wal_lsn()",
    "SELECT pg_current_xact_id()",
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SET TRANSACTION READ WRITE",
    "VACUUM",
]
REFUSED_ANYWHERE = [
    "SELECT nothing",
    "INSERT INTO nowhere VALUES (1)",
    "SELECT nothing()",
    "SELECT 1 / 0",
]


def test_all_that_a_standby_refuses_is_understood(both: Pair, driver: str) -> None:
    """Most of it has a code of its own; nothing else is taken for it."""
    assert both.standby.port is not None
    with client_of(driver, settings_for(both.standby.port), database_target="any") as client:

        def is_refused_as_by_a_standby(statement: str) -> bool:
            with pytest.raises(DBAPIError) as caught:
                client.begin(lambda session: session.execute(text(statement)))
            assert caught.value.orig is not None
            return takes_no_writes(caught.value.orig)

        refused = {each: is_refused_as_by_a_standby(each) for each in REFUSED_BY_A_STANDBY}
        others = {each: is_refused_as_by_a_standby(each) for each in REFUSED_ANYWHERE}

    assert refused == dict.fromkeys(REFUSED_BY_A_STANDBY, True)
    assert others == dict.fromkeys(REFUSED_ANYWHERE, False)


def test_a_connection_that_refuses_a_write_is_not_lent_again(front: Endpoint, driver: str) -> None:
    """One is lost, whichever it is, and none of the others."""
    with client_of(driver, settings_for(front.port), pool_size=2) as client:
        fill_pool(client, 2)
        good = client.begin(pid)
        client.begin(refuse_writes_from_now_on)
        assert client.begin(pid) == good

        assert [attempt(client) for _ in range(4)] == [M.LOST, None, None, None]
        assert good in {client.begin(pid) for _ in range(2)}


def test_it_is_not_lent_again_however_often_that_happens(front: Endpoint, driver: str) -> None:
    """A connection that has done its work is believed to be good until it says otherwise."""
    with client_of(driver, settings_for(front.port), pool_size=1) as client:
        for _ in range(3):
            client.begin(refuse_writes_from_now_on)
            assert [attempt(client), attempt(client)] == [M.LOST, None]


def test_what_it_has_refused_is_repeated(front: Endpoint, driver: str) -> None:
    """A pool full of connections to a server that was demoted costs no transaction that can be repeated."""
    with client_of(driver, settings_for(front.port), pool_size=POOL) as client:
        fill_pool(client, POOL)
        for _ in range(POOL):
            client.begin(refuse_writes_from_now_on)
        client.run(insert)

        assert client.db.health().transactions.retried == POOL


def test_a_server_that_is_told_to_take_no_writes_ends_one_connection_and_is_believed(
    both: Pair, front: Endpoint, driver: str
) -> None:
    """Its successor says the same, so nothing is won by another login; when it is over, writes work."""
    with client_of(driver, settings_for(front.port), pool_size=1) as client:
        client.begin(pid)
        try:
            both.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            both.execute("SELECT pg_reload_conf()")
            eventually(lambda: attempt(client) is not None, "the server has heard")
            assert attempt(client) is M.READ_ONLY
            successor = client.begin(pid)
            client.begin(pid)
        finally:
            with closing(both.connect()) as connection, connection.cursor() as cursor:
                cursor.execute("SET default_transaction_read_only = off")
                cursor.execute("ALTER SYSTEM RESET default_transaction_read_only")
                cursor.execute("SELECT pg_reload_conf()")
        eventually(lambda: attempt(client) is None, "the server has heard")
        assert successor


def test_a_session_that_asked_to_be_read_only_loses_nothing(front: Endpoint, driver: str) -> None:
    """A write in it is a mistake, and the connection is as good as before."""
    with client_of(driver, settings_for(front.port), pool_size=1) as client:
        first = client.begin(pid)
        assert attempt(client, read_only=True) is M.READ_ONLY
        assert client.begin(pid) == first
        with pytest.raises(SQLAlchemyError) as caught:
            client.run(insert, read_only=True)
        assert meaning_of(caught.value) is M.READ_ONLY
        assert client.db.health().transactions.retried == 0


@pytest.mark.parametrize("pool", ["queue", "none"])
def test_an_application_that_makes_itself_read_only_hears_of_it(
    front: Endpoint, driver: str, pool: str
) -> None:
    """It cannot be told from a demoted server at first, and is not repeated for as long as patience lasts."""

    def write_by_mistake(session: Session) -> None:
        session.execute(text("SET TRANSACTION READ ONLY"))
        insert(session)

    with client_of(driver, settings_for(front.port), pool_size=POOL, pool=pool) as client:
        fill_pool(client, POOL)
        began = time.monotonic()
        with pytest.raises(SQLAlchemyError) as caught:
            client.run(write_by_mistake)

        assert not isinstance(caught.value, RetriesExhausted)
        assert meaning_of(caught.value) is M.READ_ONLY
        assert client.db.health().transactions.retried <= POOL
        assert time.monotonic() - began < 15
