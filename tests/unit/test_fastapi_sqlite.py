"""Do injected sessions work without any server?"""

from fastapi import FastAPI
from sqlalchemy import text

from ledger_db import Settings
from ledger_db.fastapi import AsyncReadOnlySessionDep, AsyncSessionDep, SessionDep, lifespan
from tests.support.asgi import serving


async def test_a_developer_needs_no_server() -> None:
    """On a SQLite database in memory the same endpoints work, and both halves see the same rows."""
    app = FastAPI(lifespan=lifespan(Settings(database_url="sqlite://")))

    @app.post("/notes")
    def create(session: SessionDep) -> None:
        session.execute(text("CREATE TABLE notes (id int)"))
        session.execute(text("INSERT INTO notes VALUES (1)"))

    @app.put("/notes")
    async def add(session: AsyncSessionDep) -> None:
        await session.execute(text("INSERT INTO notes VALUES (2)"))

    @app.get("/notes")
    async def read(session: AsyncReadOnlySessionDep) -> list[int]:
        return list((await session.execute(text("SELECT id FROM notes ORDER BY id"))).scalars())

    async with serving(app) as service:
        assert (await service.client.post("/notes")).status_code == 200
        assert (await service.client.put("/notes")).status_code == 200
        assert (await service.client.get("/notes")).json() == [1, 2]
