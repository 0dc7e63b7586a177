"""Is a connection whose server has gone ever lent?"""

import time
from contextlib import closing
from functools import partial

from sqlalchemy import text
from sqlalchemy.orm import Session

from ledger_db import Settings
from ledger_db.sandbox import Sandbox
from tests.support.any_driver import DRIVERS, Client, client_of, direct_settings
from tests.support.idle_sessions import end_sessions, failures, fill_pool, pid
from tests.support.waiting import eventually

POOL = 3
TIMES = 3


def test_idle_sessions_that_an_administrator_ends_cost_no_request(own_box: Sandbox, driver: str) -> None:
    """Each is replaced where it would have been lent, whichever driver it is of."""
    with client_of(driver, direct_settings(own_box), pool_size=POOL) as client:
        for _ in range(TIMES):
            fill_pool(client, POOL)
            assert end_sessions(own_box) == POOL
            assert failures(client, POOL + 1) == []


def test_a_restart_of_the_server_costs_no_request_that_comes_after_it(own_box: Sandbox, driver: str) -> None:
    """None of the connections of the old server is lent once the new one is there."""
    with client_of(driver, direct_settings(own_box), pool_size=POOL) as client:
        for end in (own_box.postgres.stop, own_box.postgres.kill):
            fill_pool(client, POOL)
            end()
            own_box.postgres.start()
            assert failures(client, POOL + 1) == []


def test_the_retired_role_s_sessions_may_be_ended_a_second_after_a_rotation(
    environment: Sandbox, driver: str
) -> None:
    """Whoever ends them need not ask whether every service has heard of the rotation."""
    only_here = {"database_secret_id": environment.database_secret_id, "redis_secret_id": None}
    with client_of(driver, Settings(**only_here), pool_size=POOL) as client:
        for number in range(1, TIMES + 1):
            fill_pool(client, POOL)
            retired = client.begin(lambda session: session.execute(text("SELECT session_user")).scalar_one())
            environment.rotate_database("alternating-users")
            time.sleep(1)
            assert end_sessions(environment, user=retired) == POOL
            assert failures(client, POOL + 1) == []
            client.db.look_now()
            eventually(partial(_has_followed, client, number), "the rotation is followed")


def _has_followed(client: Client, rotations: int) -> bool:
    return client.db.health().servers[0].credentials.generation == rotations + 1


def test_a_goodbye_over_tls_is_heard_where_a_connection_is_lent() -> None:
    """It is words at first and no end of the line, and counts all the same."""
    with Sandbox(tls=True) as own:
        for driver in DRIVERS:
            with client_of(driver, direct_settings(own), pool_size=POOL) as client:
                fill_pool(client, POOL)
                assert end_sessions(own) == POOL
                assert failures(client, POOL + 1) == [], driver


def test_a_connection_that_has_something_else_to_say_is_kept(own_box: Sandbox, driver: str) -> None:
    """A notification is a reason to ask the server, and its answer a reason to lend the connection."""

    def listen(session: Session) -> int:
        session.execute(text("LISTEN departures"))
        return pid(session)

    with client_of(driver, direct_settings(own_box), pool_size=1) as client:
        listener = client.begin(listen)
        with closing(own_box.postgres.connect()) as other, other.cursor() as cursor:
            cursor.execute("NOTIFY departures")

        assert [client.begin(pid) for _ in range(2)] == [listener, listener]
