"""The service that one would write from FastAPI's and SQLAlchemy's documentation, for comparison."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI
from pydantic import BaseModel
from sqlalchemy import URL, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from ledger_db.sandbox import Sandbox

QUERY = text("SELECT 1")
Scope = Literal["function", "request"]


class Answer(BaseModel):
    """A response model, as every service has."""

    number: int


def url_of(box: Sandbox, driver: str) -> URL:
    """Read the database secret as anybody would."""
    with closing(box.client()) as client:
        secret = json.loads(client.get_secret_value(SecretId=box.database_secret_id)["SecretString"])
    return URL.create(
        f"postgresql+{driver}",
        secret["username"],
        secret["password"],
        secret["host"],
        int(secret["port"]),
        secret["dbname"],
    )


def create_bare(box: Sandbox, pool: dict[str, Any], *, scope: Scope) -> FastAPI:
    """
    Make a service with the endpoints /sync and /async.

    Args:
        box: Where the database is.

        pool: The options of both pools.

        scope: When the session is committed: after the response left, as in the documentation, or before.
    """
    engine = create_engine(url_of(box, "psycopg2"), **pool)
    async_engine = create_async_engine(url_of(box, "asyncpg"), **pool)
    make = sessionmaker(engine, expire_on_commit=False)
    make_async = async_sessionmaker(async_engine, expire_on_commit=False)

    def get_session() -> Iterator[Session]:
        with make() as session:
            yield session
            session.commit()

    async def get_async_session() -> AsyncIterator[AsyncSession]:
        async with make_async() as session:
            yield session
            await session.commit()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        engine.dispose()
        await async_engine.dispose()

    app = FastAPI(lifespan=lifespan)

    @app.get("/sync")
    def read(session: Annotated[Session, Depends(get_session, scope=scope)]) -> Answer:
        return Answer(number=session.execute(QUERY).scalar_one())

    @app.get("/async")
    async def read_async(
        session: Annotated[AsyncSession, Depends(get_async_session, scope=scope)],
    ) -> Answer:
        return Answer(number=(await session.execute(QUERY)).scalar_one())

    return app
