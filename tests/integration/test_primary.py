"""Is a manager on a server that takes writes, and does it find the right one after a failover?"""

import socket
import sys
import threading
from typing import Any

import pytest
from fastapi import FastAPI

from ledger_db import ConnectionManager
from ledger_db.connections import addresses
from ledger_db.errors import ServerUnreachable
from ledger_db.fastapi import (
    AsyncSessionDep,
    SessionDep,
    install_error_handlers,
    lifespan,
    manager_of,
    router,
)
from ledger_db.transactions.meaning import Meaning
from tests.support.any_driver import choice_of, client_of, is_on_loop
from tests.support.asgi import serving
from tests.support.endpoint import HOST, Endpoint, endpoint
from tests.support.idle_sessions import fill_pool, pid
from tests.support.replica import Pair
from tests.support.waiting import eventually
from tests.support.writing import attempt, insert, refuse_writes_from_now_on, settings_for

M = Meaning
POOL = 3


def test_no_write_fails_once_the_endpoint_has_followed_a_failover(
    both: Pair, front: Endpoint, driver: str
) -> None:
    """What was opened while it was late is not in the pool: a login had to find the right server."""
    with client_of(driver, settings_for(front.port), pool_size=POOL) as client:
        fill_pool(client, POOL)
        both.fail_over()
        late = [attempt(client) for _ in range(2 * POOL)]
        reports = client.db.health(), client.db.probe(max_age_seconds=0)
        both.lead(front)
        after = [attempt(client) for _ in range(2 * POOL)]

        assert late == [M.UNAVAILABLE] * (2 * POOL)
        assert after == [None] * (2 * POOL)
        assert [(report.ok, report.servers[0].ok) for report in reports] == [(False, False)] * 2
        assert not reports[0].servers[0].takes_writes
        assert (reports[1].servers[0].name, reports[1].servers[0].problem) == (
            "PostgreSQL",
            "takes no writes",
        )
        assert client.db.health().ok
        assert client.db.probe(max_age_seconds=0).ok


def test_a_transaction_that_meets_a_failover_is_repeated_until_the_endpoint_follows(
    both: Pair, front: Endpoint, driver: str
) -> None:
    """Who uses run sees nothing of it but the time."""
    with client_of(driver, settings_for(front.port), pool_size=1) as client:
        client.run(insert)
        both.fail_over()
        following = threading.Timer(0.5, both.lead, (front,))
        following.start()
        client.run(insert)
        following.join()


def test_a_start_waits_for_a_server_that_takes_writes(both: Pair, front: Endpoint, driver: str) -> None:
    """A failover that is under way is no reason for a service not to start."""
    assert both.standby.port is not None
    front.leads_to = both.standby.port
    following = threading.Timer(0.5, both.lead, (front,))
    following.start()
    with client_of(driver, settings_for(front.port)) as client:
        assert attempt(client) is None
    following.join()


def test_a_start_that_finds_none_says_so(both: Pair, driver: str) -> None:
    """Not that the server cannot be reached: it can, and is the wrong one."""
    assert both.standby.port is not None
    with (
        pytest.raises(ServerUnreachable, match=r"no server that takes writes .* LEDGER_DB_DATABASE_TARGET"),
        client_of(driver, settings_for(both.standby.port, startup_timeout_seconds=0.5)),
    ):
        pytest.fail("it is open")


def test_a_standby_is_good_enough_for_who_says_so(both: Pair, driver: str) -> None:
    """It is used and well, and a write there is the application's error."""
    assert both.standby.port is not None
    with client_of(driver, settings_for(both.standby.port), database_target="any", pool_size=1) as client:
        first = client.begin(pid)
        assert attempt(client) is M.READ_ONLY
        assert client.begin(pid) == first
        assert client.db.health().ok
        assert client.db.probe().ok


def create_service(front: Endpoint, driver: str) -> FastAPI:
    """Make a service that writes."""
    app = FastAPI(lifespan=lifespan(settings_for(front.port, pool_size=1, **choice_of(driver))))
    app.include_router(router)
    install_error_handlers(app)

    @app.post("/sync")
    def write(session: SessionDep) -> None:
        insert(session)

    @app.post("/async")
    async def write_on_loop(session: AsyncSessionDep) -> None:
        await session.run_sync(insert)

    return app


async def test_a_service_names_the_server_that_takes_no_writes(
    both: Pair, front: Endpoint, driver: str
) -> None:
    """Clients are told when to come back, load balancers to send nothing, until the endpoint has followed."""
    app, path = create_service(front, driver), "/async" if is_on_loop(driver) else "/sync"

    async def write() -> tuple[int, str | None]:
        answer = await served.client.post(path)
        return answer.status_code, answer.headers.get("retry-after")

    async def told() -> tuple[Any, ...]:
        # Readiness may be a second old, the rest of this is not: so asked anew.
        await manager_of(app).async_probe(max_age_seconds=0)
        ready = await served.client.get("/health/ready")
        known = (await served.client.get("/health/database")).json()
        servers = ready.json()["managers"]["default"]["servers"]
        takes_writes = known["managers"]["default"]["servers"]["PostgreSQL"]["takes_writes"]
        return ready.status_code, servers["PostgreSQL"]["problem"], takes_writes

    async with serving(app) as served:
        assert await write() == (200, None)
        both.fail_over()
        assert await write() == (503, "5")
        assert await told() == (503, "takes no writes", False)
        both.lead(front)
        assert [await write() for _ in range(3)] == [(200, None)] * 3
        assert await told() == (200, None, True)


async def test_a_client_whose_write_is_refused_may_send_it_again(front: Endpoint, driver: str) -> None:
    """The connection that refused it is gone when the client comes back, however soon."""
    app, path = create_service(front, driver), "/async" if is_on_loop(driver) else "/sync"
    async with serving(app) as served:
        if is_on_loop(driver):
            async with manager_of(app).async_begin() as session:
                await session.run_sync(refuse_writes_from_now_on)
        else:
            with manager_of(app).begin() as session:
                refuse_writes_from_now_on(session)
        refused = await served.client.post(path)
        again = await served.client.post(path)

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert again.status_code == 200


# libpq, and so psycopg2, asks a resolver that no test can reach.
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux answers at every address of the loopback")
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg", "psycopg-async"])
def test_connections_at_an_address_that_the_name_has_left_are_replaced(
    both: Pair, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old server may live on and say nothing, and nobody is kept there for it."""
    monkeypatch.setattr(addresses, "INTERVAL_SECONDS", 0.02)
    found_at, resolve = [HOST], socket.getaddrinfo

    def resolve_here(host: Any, *arguments: Any, **named: Any) -> Any:
        return resolve(found_at[0] if host == "localhost" else host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_here)
    assert both.primary.port is not None
    with endpoint(both.primary.port) as here:
        to_a_name = settings_for(here.port, database_host="localhost", database_driver="psycopg")
        with client_of(driver, to_a_name, pool_size=2) as client:
            fill_pool(client, 2)
            before = {client.begin(pid) for _ in range(2)}
            with endpoint(both.primary.port, host="127.0.0.2", own_port=here.port) as there:
                found_at[0] = "127.0.0.2"

                def both_are_new() -> bool:
                    # A renewal that holds one leaves the other to all four: a round may see only one.
                    kept = {client.begin(pid) for _ in range(4)}
                    return len(kept) == 2 and kept.isdisjoint(before)

                eventually(both_are_new, "both are new")
                assert there.led <= 4  # two in the pool, and two that the probe may open


def test_a_literal_address_starts_no_thread(front: Endpoint) -> None:
    """There is nothing to look up."""
    with ConnectionManager(settings_for(front.port)):
        assert "ledger_db-addresses" not in {thread.name for thread in threading.enumerate()}
    with ConnectionManager(settings_for(front.port, database_host="localhost")):
        assert "ledger_db-addresses" in {thread.name for thread in threading.enumerate()}
    assert "ledger_db-addresses" not in {thread.name for thread in threading.enumerate()}
