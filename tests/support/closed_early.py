"""Endpoints that end their session themselves, written once: on a loop they run inside of SQLAlchemy's."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from ledger_db import Settings
from ledger_db.fastapi import AsyncManualSessionDep, AsyncSessionDep, ManualSessionDep, SessionDep
from tests.support.notes_service import INSERT, Note
from tests.support.ways import Half, new_app


def _write(session: Session) -> None:
    session.execute(INSERT, {"id": 1})


def _raise_if(wanted: object) -> None:
    if wanted:
        raise LookupError


def _commit_and_close(session: Session) -> None:
    _write(session)
    session.commit()
    session.close()


def _read_and_close(session: Session) -> None:
    session.execute(text("SELECT 1"))
    session.close()


def _write_and_close(session: Session) -> None:
    _write(session)
    session.close()


def _add_and_close(session: Session) -> None:
    session.add(Note(id=1))
    session.close()


def _undo_and_close(session: Session) -> None:
    _write(session)
    session.rollback()
    session.close()


def _write_hidden_in_a_query(session: Session) -> None:
    session.execute(
        text("WITH added AS (INSERT INTO fastapi_notes VALUES (1) RETURNING id) SELECT * FROM added")
    )
    session.close()


def _fail_and_close(session: Session) -> None:
    _write(session)
    try:
        _write(session)
    except DBAPIError:
        session.close()


def _commit_then_write_and_close(session: Session) -> None:
    _write(session)
    session.commit()
    session.execute(INSERT, {"id": 2})
    session.close()


CALLS: dict[str, tuple[Callable[[Session], None], tuple[int, list[int]]]] = {
    "nothing": (Session.close, (201, [])),
    "commit": (_commit_and_close, (201, [1])),
    "read": (_read_and_close, (201, [])),
    "undo": (_undo_and_close, (201, [])),
    "failed": (_fail_and_close, (201, [])),
    "written": (_write_and_close, (500, [])),
    "added": (_add_and_close, (500, [])),
    "hidden": (_write_hidden_in_a_query, (500, [])),
    "afterwards": (_commit_then_write_and_close, (500, [1])),
}
"""What is done before the endpoint returns, and what its client hears and finds."""

BLOCKS: dict[str, tuple[bool, bool, tuple[int, list[int]]]] = {
    "committed": (True, False, (201, [1])),
    "written": (False, False, (500, [])),
    "caught": (False, True, (201, [])),
}
"""Whether a block with the session commits, and whether it raises what is caught around it."""


def create_app(settings: Settings, driver: str) -> FastAPI:
    """Make a service whose endpoints are called like the rows of the two tables."""
    app = new_app(settings, driver)
    on_loop = Half(driver).on_loop
    for name, (work, _) in CALLS.items():
        app.add_api_route(f"/call/{name}", _calling(work, on_loop=on_loop), status_code=201)
    for name, (commits, raises, _) in BLOCKS.items():
        endpoint = _in_block(commits=commits, raises=raises, on_loop=on_loop)
        app.add_api_route(f"/block/{name}", endpoint, status_code=201)
    app.add_api_route("/manual", _manual(on_loop=on_loop), status_code=201)
    return app


def _calling(work: Callable[[Session], None], *, on_loop: bool) -> Callable[..., Any]:
    def call(session: SessionDep) -> None:
        work(session)

    async def call_on_loop(session: AsyncSessionDep) -> None:
        await session.run_sync(work)

    return call_on_loop if on_loop else call


def _in_block(*, commits: bool, raises: bool, on_loop: bool) -> Callable[..., Any]:
    def block(session: SessionDep) -> None:
        try:
            with session:
                _write(session)
                if commits:
                    session.commit()
                _raise_if(raises)
        except LookupError:
            pass

    async def block_on_loop(session: AsyncSessionDep) -> None:
        try:
            async with session:
                await session.run_sync(_write)
                if commits:
                    await session.commit()
                _raise_if(raises)
        except LookupError:
            pass

    return block_on_loop if on_loop else block


def _manual(*, on_loop: bool) -> Callable[..., Any]:
    def manual(session: ManualSessionDep) -> None:
        _write_and_close(session)

    async def manual_on_loop(session: AsyncManualSessionDep) -> None:
        await session.run_sync(_write_and_close)

    return manual_on_loop if on_loop else manual
