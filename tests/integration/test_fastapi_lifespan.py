"""When are managers opened and closed, and who finds them?"""

import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, WebSocket
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from ledger_db import ConfigurationError, ConnectionManager, LedgerDBError, Settings
from ledger_db.fastapi import (
    AsyncRedisDep,
    AsyncSessionFactory,
    ManagerDep,
    RedisDep,
    SessionFactory,
    async_redis_dependency,
    async_session_dependency,
    async_session_factory_dependency,
    lifespan,
    manager_dependency,
    manager_of,
    redis_dependency,
    session_dependency,
    session_factory_dependency,
)
from tests.support.asgi import Served, serving


def is_open(db: ConnectionManager) -> bool:
    """Whether a manager can be used."""
    return db.health().ok


def add_endpoint(app: FastAPI) -> None:
    """Add an endpoint that tells which role it is, and of which manager."""

    @app.get("/role")
    def role(db: ManagerDep) -> list[Any]:
        with db.session() as session:
            return [session.execute(text("SELECT session_user")).scalar_one(), id(db)]


async def test_a_service_may_start_again(settings: Settings) -> None:
    """Each start has a manager of its own, and leaves none open."""
    app = FastAPI(lifespan=lifespan(settings))
    add_endpoint(app)
    managers = []
    for _ in range(2):
        async with serving(app) as service:
            managers.append(manager_of(app))
            assert (await service.client.get("/role")).status_code == 200

    assert managers[0] is not managers[1]
    assert not any(is_open(each) for each in managers)


async def test_the_environment_is_read_at_the_start(environment: object) -> None:
    """Without an argument, what LEDGER_DB_* says when the service starts."""
    app = FastAPI(lifespan=lifespan())
    async with serving(app):
        assert is_open(manager_of(app))


async def test_a_manager_may_be_made_by_the_application(settings: Settings) -> None:
    """Given as it is or by whoever makes one, it is opened and closed."""
    made = ConnectionManager(settings)
    for source in (made, lambda: ConnectionManager(settings)):
        app = FastAPI(lifespan=lifespan(source))
        async with serving(app):
            db = manager_of(app)
            assert is_open(db)
        assert not is_open(db)


async def test_whoever_opened_a_manager_closes_it(settings: Settings) -> None:
    """One that is open already is used, and open afterwards."""
    async with ConnectionManager(settings) as db:
        for _ in range(2):
            app = FastAPI(lifespan=lifespan(db))
            async with serving(app):
                assert manager_of(app) is db
            assert is_open(db)


async def test_every_manager_has_its_own_dependencies(settings: Settings) -> None:
    """Sessions, factories and clients of a named manager are that manager's."""
    app = FastAPI(lifespan=lifespan(settings, archive=settings))

    @app.get("/managers")
    async def managers(
        one: ManagerDep,
        archive: Annotated[ConnectionManager, manager_dependency("archive")],
        session: Annotated[Session, session_dependency("archive")],
        async_session: Annotated[AsyncSession, async_session_dependency("archive")],
        factory: Annotated[SessionFactory, session_factory_dependency("archive")],
        async_factory: Annotated[AsyncSessionFactory, async_session_factory_dependency("archive")],
        redis: Annotated[Redis, redis_dependency("archive")],
        async_redis: Annotated[AsyncRedis, async_redis_dependency("archive")],
        first: RedisDep,
        async_first: AsyncRedisDep,
    ) -> list[bool]:
        async with async_factory.session() as other:
            return [
                one is archive,
                session.get_bind() is archive.engine,
                factory.session().get_bind() is archive.engine,
                async_session.bind is archive.async_engine,
                other.bind is archive.async_engine,
                redis is archive.redis,
                async_redis is archive.async_redis,
                first is one.redis,
                async_first is one.async_redis,
            ]

    async with serving(app) as service:
        assert (await service.client.get("/managers")).json() == [False] + [True] * 8
        with pytest.raises(ConfigurationError, match="no manager called 'ledger', only default, archive"):
            manager_of(app, "ledger")


def test_two_managers_cannot_be_called_default(settings: Settings) -> None:
    """Ambiguity is a mistake, and said so before the service starts."""
    with pytest.raises(ConfigurationError, match="first argument"):
        lifespan(settings, default=settings)


async def test_a_lifespan_of_ones_own_runs_inside(settings: Settings) -> None:
    """It finds the managers open when it begins and when it ends, and what it yields is kept."""
    seen = []

    @asynccontextmanager
    async def mine(app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        seen.append(is_open(manager_of(app)))
        yield {"answer": 42}
        seen.append(is_open(manager_of(app)))

    async with serving(FastAPI(lifespan=lifespan(settings, then=mine))) as service:
        assert service.state["answer"] == 42
    assert seen == [True, True]


async def test_a_lifespan_of_ones_own_may_run_ours(settings: Settings) -> None:
    """The other way round works as well, even if it keeps to itself what ours yields."""

    @asynccontextmanager
    async def mine(app: FastAPI) -> AsyncIterator[None]:
        async with lifespan(settings)(app):
            yield

    app, mounted = FastAPI(lifespan=mine), FastAPI()
    app.mount("/mounted", mounted)
    for each in (app, mounted):
        add_endpoint(each)
    async with serving(app) as service:
        assert service.state == {}
        assert (await service.client.get("/role")).status_code == 200
        assert (await service.client.get("/mounted/role")).status_code == 200


async def test_lifespans_of_ours_add_up(settings: Settings) -> None:
    """One inside the other: the managers of both are known."""
    app = FastAPI(lifespan=lifespan(settings, first=settings, then=lifespan(settings, second=settings)))
    async with serving(app):
        assert manager_of(app, "first") is not manager_of(app, "second")


async def test_mounted_applications_and_websockets_find_the_manager(settings: Settings) -> None:
    """Also an application that is mounted while the service runs, or behind a middleware."""
    app, early, late = FastAPI(lifespan=lifespan(settings)), FastAPI(), FastAPI()

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(str(id(manager_of(websocket))))
        await websocket.close()

    for each in (early, late):
        add_endpoint(each)
        each.add_api_websocket_route("/socket", socket)
    app.mount("/early", early)
    async with serving(app) as service:
        app.mount("/late", late)
        for prefix in ("early", "late"):
            answer = await service.client.get(f"/{prefix}/role")
            heard = await service.talk(f"/{prefix}/socket")
            assert answer.json()[1] == id(manager_of(app))
            assert heard[1]["text"] == str(id(manager_of(app)))


async def test_an_application_may_run_twice_at_once(settings: Settings) -> None:
    """Each start serves its requests with its own manager, and they may end in any order."""
    app = FastAPI(lifespan=lifespan(settings))
    add_endpoint(app)

    async def role(service: Served) -> int:
        return int((await service.client.get("/role")).json()[1])

    async with AsyncExitStack() as last:
        async with serving(app) as first:
            one = id(manager_of(app))
            second = await last.enter_async_context(serving(app))
            other = id(manager_of(app))

            assert one != other
            assert [await role(each) for each in (first, second, first)] == [one, other, one]
        assert id(manager_of(app)) == other
        assert await role(second) == other
    with pytest.raises(ConfigurationError, match="no lifespan of ledger_db ran"):
        manager_of(app)


async def test_a_mounted_application_may_have_managers_of_its_own(settings: Settings) -> None:
    """Started by hand in the lifespan of the whole, it does not use the managers of that."""
    part = FastAPI(lifespan=lifespan(settings))

    @asynccontextmanager
    async def start_part(app: FastAPI) -> AsyncIterator[None]:
        async with part.router.lifespan_context(part):
            yield

    app = FastAPI(lifespan=lifespan(settings, then=start_part))
    app.mount("/part", part)
    for each in (app, part):
        add_endpoint(each)
    async with serving(app) as service:
        managers = [(await service.client.get(path)).json()[1] for path in ("/role", "/part/role")]

        assert managers == [id(manager_of(app)), id(manager_of(part))]
        assert managers[0] != managers[1]


async def test_a_request_without_a_lifespan_is_told_so(settings: Settings) -> None:
    """Before the start and after the end the message says what is missing."""
    app = FastAPI(lifespan=lifespan(settings))
    with pytest.raises(ConfigurationError, match=r"no lifespan of ledger_db ran.*TestClient in a 'with'"):
        manager_of(app)
    async with serving(app):
        pass
    with pytest.raises(ConfigurationError, match="no lifespan of ledger_db ran"):
        manager_of(app)


async def test_everything_is_closed_whatever_fails(settings: Settings) -> None:
    """A lifespan of one's own that raises, or a second manager that cannot be opened."""

    @asynccontextmanager
    async def failing(app: FastAPI) -> AsyncIterator[None]:
        opened.append(manager_of(app))
        if opened:
            raise RuntimeError("of one's own")
        yield

    opened: list[ConnectionManager] = []
    with pytest.raises(RuntimeError, match="of one's own"):
        async with serving(FastAPI(lifespan=lifespan(settings, then=failing))):
            pass
    first = ConnectionManager(settings)
    missing = settings.model_copy(update={"database_secret_id": "test/not-there", "redis_secret_id": None})
    with pytest.raises(LedgerDBError, match="not-there"):
        async with serving(FastAPI(lifespan=lifespan(first, archive=missing))):
            pass

    assert not is_open(opened[0])
    assert not is_open(first)


def test_a_start_that_fails_ends_the_service(environment: object) -> None:
    """uvicorn exits with status 3, and the reason is on the screen."""
    code = (
        "import uvicorn; from fastapi import FastAPI; from ledger_db import Settings\n"
        "from ledger_db.fastapi import lifespan\n"
        "settings = Settings(database_secret_id='test/not-there', redis_secret_id=None)\n"
        f"uvicorn.run(FastAPI(lifespan=lifespan(settings)), port={free_port()})"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.returncode == 3
    assert "test/not-there" in ended.stderr


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
