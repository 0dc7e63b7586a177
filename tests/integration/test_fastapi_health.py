"""Do the health endpoints tell the truth, at once, whatever state the servers and the pools are in?"""

import asyncio
import json
import multiprocessing
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from multiprocessing.connection import Connection
from typing import Any
from unittest import mock

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from ledger_db import ConnectionManager, Settings
from ledger_db.connections.postgres_server import PostgresServer
from ledger_db.fastapi import lifespan, make_router, manager_of, router
from ledger_db.sandbox import Sandbox
from ledger_db.stand_in.faults import access_denied
from tests.support.asgi import Served, serving
from tests.support.waiting import eventually

PATHS = ("/health/live", "/health/ready", "/health/database", "/health/database/detailed")
AT_ONCE_SECONDS = 0.2


@asynccontextmanager
async def service(settings: Settings) -> AsyncIterator[Served]:
    """Run a service that has nothing but its health."""
    app = FastAPI(lifespan=lifespan(settings))
    app.include_router(router)
    async with serving(app) as served:
        yield served


def smallest(settings: Settings) -> Settings:
    """Return *settings* with one connection for an engine, for which a request waits long."""
    return settings.model_copy(update={"pool_size": 1, "max_overflow": 0, "pool_timeout_seconds": 30.0})


def users_of_probes(box: Sandbox) -> list[tuple[int, str]]:
    """Return process and role of each connection that PostgreSQL has for a probe."""
    with closing(box.postgres.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid, usename FROM pg_stat_activity WHERE application_name = 'ledger_db.probe' ORDER BY 1"
        )
        return [(pid, user) for pid, user in cursor.fetchall()]


async def settled(condition: Callable[[], bool], what: str) -> None:
    """Wait for *condition* while the service goes on."""
    await asyncio.to_thread(eventually, condition, what)


async def timed(served: Served, path: str) -> tuple[httpx.Response, float]:
    """Return the answer, and the seconds that it took; the quickest of three, as the machine is busy too."""
    tries = []
    for _ in range(3):
        began = time.monotonic()
        tries.append((await served.client.get(path), time.monotonic() - began))
    return min(tries, key=lambda each: each[1])


async def test_a_healthy_service_says_so(settings: Settings) -> None:
    """All four endpoints answer 200, no cache keeps it, and HEAD has the same status without the rest."""
    async with service(settings) as served:
        for path in PATHS:
            answer, head = await served.client.get(path), await served.client.head(path)

            assert (answer.status_code, answer.json()["ok"]) == (200, True), path
            assert head.status_code == 200
            assert answer.headers["cache-control"] == head.headers["cache-control"] == "no-store"


async def test_a_saturated_pool_is_reported_at_once(settings: Settings) -> None:
    """With every connection of both engines held, who asks for health does not wait for one."""
    async with service(smallest(settings)) as served:
        db = manager_of(served.app)
        async with db.async_begin() as async_session:
            await async_session.execute(text("SELECT 1"))
            with db.begin() as session:
                session.execute(text("SELECT 1"))
                answers = {path: await timed(served, path) for path in PATHS}

    assert [(path, answer.text) for path, (answer, _) in answers.items() if answer.status_code != 200] == []
    assert max(seconds for _, seconds in answers.values()) < AT_ONCE_SECONDS
    pools = answers["/health/database"][0].json()["managers"]["default"]["servers"]["PostgreSQL"]["pools"]
    held = {"capacity": 1, "checked_out": 1, "idle": 0, "saturated": True}
    assert pools == [{"driver": "psycopg2", **held}, {"driver": "asyncpg", **held}]


async def test_a_crowd_of_probes_costs_one_query(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty questions within a second are one on one connection."""
    asked = []
    real = PostgresServer.probe

    def counting(server: PostgresServer) -> None:
        asked.append(server)
        real(server)

    monkeypatch.setattr(PostgresServer, "probe", counting)
    async with service(settings) as served:
        began = time.monotonic()
        for _ in range(10):
            await served.client.get("/health/ready")
            await served.client.get("/health/database/detailed")
        seconds = time.monotonic() - began

    assert 1 <= len(asked) <= 1 + seconds


async def test_a_rotation_is_seen_and_followed(settings: Settings, environment: Sandbox) -> None:
    """The generation goes up, and no connection of before stays, not even the probe's."""
    async with service(settings) as served:
        before = (await served.client.get("/health/database/detailed")).json()
        ((first, old_user),) = users_of_probes(environment)
        environment.rotate_database("alternating-users")
        manager_of(served.app).look_now()
        await settled(
            lambda: manager_of(served.app).health().servers[0].credentials.generation == 2,
            "the rotation is adopted",
        )
        await settled(
            lambda: first not in dict(users_of_probes(environment)), "the probe's connection is renewed"
        )
        await asyncio.to_thread(manager_of(served.app).probe, max_age_seconds=0)
        after = (await served.client.get("/health/database/detailed")).json()
        ((_, new_user),) = users_of_probes(environment)

    assert credentials(before)["generation"] == 1
    assert credentials(after)["generation"] == 2
    assert credentials(after)["version"] != credentials(before)["version"]
    assert credentials(after)["adopted_seconds_ago"] <= credentials(before)["adopted_seconds_ago"] + 15
    assert after["ok"]
    assert new_user != old_user


def credentials(health: dict[str, Any]) -> dict[str, Any]:
    """Return what *health* has of PostgreSQL's credentials."""
    known: dict[str, Any] = health["managers"]["default"]["servers"]["PostgreSQL"]["credentials"]
    return known


async def test_a_secret_that_only_a_person_can_mend_does_not_stop_the_service(
    settings: Settings, environment: Sandbox
) -> None:
    """The database health says it, in words that name no account; requests still come in."""
    settings = settings.model_copy(update={"refresh_interval_seconds": 0.3})
    async with service(settings) as served:
        environment.secrets_manager.inject(access_denied("GetSecretValue"))
        db = manager_of(served.app)
        await settled(lambda: not any(server.ok for server in db.health().servers), "the denial is known")
        ready, database = [await served.client.get(f"/health/{name}") for name in ("ready", "database")]

    assert ready.status_code == 200
    assert database.status_code == 503
    assert credentials(database.json())["problem"] == "the secret cannot be read until somebody mends it"
    assert "secretsmanager" not in database.text


def not_for_clients(box: Sandbox) -> set[str]:
    """Return what no answer may have in it."""
    with closing(box.client()) as client:
        values = [
            json.loads(client.get_secret_value(SecretId=secret)["SecretString"])
            for secret in (box.database_secret_id, box.redis_secret_id)
        ]
    fields = ("username", "password", "host", "port")
    return {str(value[field]) for value in values for field in fields} | {
        box.database_secret_id,
        box.redis_secret_id,
    }


async def test_a_database_that_is_away_is_reported_in_time() -> None:
    """503 without an address while it is away, 200 once it is back; Redis alone stops nobody."""
    with Sandbox() as own, mock.patch.dict(os.environ, own.environment):
        secrets = not_for_clients(own)
        async with service(Settings()) as served:
            assert (await served.client.get("/health/ready")).status_code == 200
            own.redis.stop()
            assert await shown(served, "Redis") == {"ready": 200, "database": 200, "database/detailed": 503}
            own.postgres.kill()
            assert await shown(served, "PostgreSQL") == {
                "ready": 503,
                "database": 200,
                "database/detailed": 503,
            }
            for path in PATHS:
                answer, seconds = await timed(served, path)
                assert [secret for secret in secrets if secret in answer.text + repr(answer.headers)] == []
                assert seconds < 10
            own.postgres.start()
            own.redis.start()
            db = manager_of(served.app)
            await settled(lambda: db.probe(max_age_seconds=0).ok, "both are back")
            for path in PATHS:
                assert (await served.client.get(path)).status_code == 200


async def shown(served: Served, name: str) -> dict[str, int]:
    """Wait until the server called *name* is known to be away, and return the statuses."""
    db = manager_of(served.app)

    def away() -> bool:
        return name in {server.name for server in db.probe(max_age_seconds=0).servers if not server.ok}

    await settled(away, f"{name} is away")
    paths = ("ready", "database", "database/detailed")
    return {path: (await served.client.get(f"/health/{path}")).status_code for path in paths}


async def test_a_service_with_nothing_but_redis_is_ready_while_redis_is(
    environment: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Redis is the only server, it is the one that counts."""
    monkeypatch.delenv("LEDGER_DB_DATABASE_SECRET_ID")
    async with service(Settings()) as served:
        well = await served.client.get("/health/ready")
        db = manager_of(served.app)
        monkeypatch.setattr(db._prober._servers[0], "_ask", _fail)
        await settled(lambda: not db.probe(max_age_seconds=0).ok, "Redis is away")
        away = await served.client.get("/health/ready")

    assert list(well.json()["managers"]["default"]["servers"]) == ["Redis"]
    assert (well.status_code, away.status_code) == (200, 503)


def _fail() -> None:
    raise ConnectionError


async def test_a_server_that_hangs_is_reported_in_time(settings: Settings, environment: Sandbox) -> None:
    """A frozen server keeps nobody waiting for more than three seconds, and the second not at all."""
    async with service(settings) as served:
        await served.client.get("/health/ready")
        ((pid, _),) = users_of_probes(environment)
        db = manager_of(served.app)
        os.kill(pid, signal.SIGSTOP)
        try:
            await settled(lambda: not db.probe(max_age_seconds=0).ok, "it hangs")
            answers = {path: await timed(served, path) for path in PATHS}
        finally:
            os.kill(pid, signal.SIGCONT)
        await settled(lambda: db.probe(max_age_seconds=0).ok, "it is well again")

    statuses = {path: answer.status_code for path, (answer, _) in answers.items()}
    assert statuses == dict(zip(PATHS, (200, 503, 200, 503), strict=True))
    assert max(seconds for _, seconds in answers.values()) < AT_ONCE_SECONDS
    problem = answers["/health/ready"][0].json()["managers"]["default"]["servers"]["PostgreSQL"]["problem"]
    assert problem == "no answer within 3 s"


async def test_a_service_that_is_closing_is_not_ready(settings: Settings) -> None:
    """Requests go elsewhere while it closes; it is alive, and says in which state it is."""
    async with service(settings) as served:
        db = manager_of(served.app)
        states = {}
        for state in ("closing", "closed"):
            if state == "closing":
                db._begin_close()
            else:
                await db.async_close()
            states[state] = [await served.client.get(path) for path in PATHS]

    for state, (live, *others) in states.items():
        assert live.status_code == 200
        assert [answer.status_code for answer in others] == [503, 503, 503]
        assert {answer.json()["managers"]["default"]["state"] for answer in others} == {state}


async def test_a_service_without_a_lifespan_is_not_ready() -> None:
    """Before the start, and if somebody has forgotten it, there is nothing that could be well."""
    app = FastAPI()
    app.include_router(router)
    answers = [await Served(app, {}).client.get(path) for path in PATHS]

    assert [answer.status_code for answer in answers] == [200, 503, 503, 503]
    assert answers[1].json() == {"ok": False, "managers": {}}


async def test_each_manager_is_reported_under_its_name(settings: Settings) -> None:
    """All are told of, and count; a router for one of them knows of no other."""
    app = FastAPI(lifespan=lifespan(settings, archive=settings))
    app.include_router(router)
    app.include_router(make_router("archive"), prefix="/archive")
    async with serving(app) as served:
        await manager_of(app).async_close()
        everybody = await served.client.get("/health/ready")
        archive = await served.client.get("/archive/health/ready")

    assert everybody.status_code == 503
    assert {name: told["ok"] for name, told in everybody.json()["managers"].items()} == {
        "default": False,
        "archive": True,
    }
    assert (archive.status_code, list(archive.json()["managers"])) == (200, ["archive"])


async def test_the_answers_are_documented(settings: Settings) -> None:
    """OpenAPI has each endpoint once, with the same form for well and for not well."""
    async with service(settings) as served:
        documented = (await served.client.get("/openapi.json")).json()

    assert set(documented["paths"]) == set(PATHS)
    for path in PATHS[1:]:
        (operation,) = documented["paths"][path].values()
        forms = [operation["responses"][status]["content"]["application/json"] for status in ("200", "503")]
        assert forms[0] == forms[1]
        assert operation["tags"] == ["health"]


async def test_a_development_database_has_a_health_too() -> None:
    """The same endpoints tell of SQLite."""
    async with service(Settings(database_url="sqlite://", profile="development")) as served:
        answers = [await served.client.get(path) for path in PATHS]

    assert [answer.status_code for answer in answers] == [200] * 4
    assert list(answers[1].json()["managers"]["default"]["servers"]) == ["SQLite"]


@pytest.fixture
def asked(settings: Settings) -> Iterator[ConnectionManager]:
    """A manager that has asked its servers already."""
    with ConnectionManager(settings) as db:
        assert db.probe().ok
        yield db


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_worker_asks_on_a_connection_of_its_own(
    asked: ConnectionManager, environment: Sandbox
) -> None:
    """The child's probe is not the parent's, and the parent's goes on."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    ((parents, _),) = users_of_probes(environment)
    child = context.Process(target=_probe_in_child, args=(asked, theirs))
    child.start()
    assert ours.poll(30)
    assert ours.recv()
    pids = [pid for pid, _ in users_of_probes(environment)]
    ours.send("done")
    child.join(30)
    ours.close()
    theirs.close()

    assert child.exitcode == 0
    assert parents in pids
    assert len(pids) == 2
    assert asked.probe(max_age_seconds=0).ok
    assert users_of_probes(environment)[0][0] == parents


def _probe_in_child(db: ConnectionManager, pipe: Connection) -> None:
    pipe.send(db.probe(max_age_seconds=0).ok)
    pipe.recv()


def test_closing_leaves_no_probe_behind(settings: Settings, environment: Sandbox) -> None:
    """A closed manager has no connection on the server, and says that it is not open."""
    with ConnectionManager(settings) as db:
        assert db.probe().ok
        assert len(users_of_probes(environment)) == 1

    eventually(lambda: users_of_probes(environment) == [], "the probe's connection is closed")
    assert not db.probe().ok
