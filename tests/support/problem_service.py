"""A service with an endpoint for each way in which PostgreSQL can say no, provoked for real."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.orm import Session

from ledger_db import Settings
from ledger_db.fastapi import (
    AsyncSessionDep,
    SessionDep,
    install_error_handlers,
    lifespan,
    problem_responses,
)
from ledger_db.sandbox import Sandbox
from tests.support.any_driver import choice_of, is_on_loop

CANARY = "canary-731650927"
"""A value of a row, which is nobody's business but the client's who sent it."""

_CREATE = f"""
DROP TABLE IF EXISTS problem_child, problem_parent;
CREATE TABLE problem_parent (
    id int CONSTRAINT problem_number PRIMARY KEY,
    name varchar(40) NOT NULL CONSTRAINT problem_name UNIQUE,
    amount int CONSTRAINT problem_amount CHECK (amount > 0),
    during int4range,
    CONSTRAINT problem_during EXCLUDE USING gist (during WITH &&)
);
CREATE TABLE problem_child (
    parent int CONSTRAINT problem_parent_of REFERENCES problem_parent ON DELETE RESTRICT,
    later int CONSTRAINT problem_later REFERENCES problem_parent DEFERRABLE INITIALLY DEFERRED
);
INSERT INTO problem_parent VALUES (1, '{CANARY}', 1, '[1,5)'), (2, 'other', 1, '[5,9)');
INSERT INTO problem_child VALUES (1, NULL);
GRANT ALL ON problem_parent, problem_child TO PUBLIC
"""

Work = Callable[[Session, Sandbox], object]


class Expected(NamedTuple):
    """What a client is told."""

    status: int
    kind: str
    constraint: str | None = None
    retry_after: str | None = None


@contextmanager
def problem_tables(box: Sandbox) -> Iterator[None]:
    """Make the tables, and remove them."""
    with closing(box.postgres.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(_CREATE)
        yield
        cursor.execute("DROP TABLE problem_child, problem_parent")


def _says(statement: str, **values: Any) -> Work:
    return lambda session, box: session.execute(text(statement), values)


def _locked(session: Session, box: Sandbox) -> None:
    with closing(box.postgres.connect()) as other, other.cursor() as cursor:
        cursor.execute("BEGIN; SELECT * FROM problem_parent WHERE id = 1 FOR UPDATE")
        session.execute(text("SELECT * FROM problem_parent WHERE id = 1 FOR UPDATE NOWAIT"))


def _waited(session: Session, box: Sandbox) -> None:
    session.execute(text("SET LOCAL lock_timeout = '20ms'"))
    with closing(box.postgres.connect()) as other, other.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE problem_child")
        session.execute(text("SELECT * FROM problem_child"))


def _overtaken(session: Session, box: Sandbox) -> None:
    session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
    session.execute(text("SELECT * FROM problem_parent"))
    with closing(box.postgres.connect()) as other, other.cursor() as cursor:
        cursor.execute("UPDATE problem_parent SET amount = amount + 1 WHERE id = 1")
    session.execute(text("UPDATE problem_parent SET amount = amount + 1 WHERE id = 1"))


def _deadlocked(session: Session, box: Sandbox) -> None:
    update = "UPDATE problem_parent SET amount = amount + 1 WHERE id = "
    session.execute(text(f"{update} 1"))
    with closing(box.postgres.connect()) as other, other.cursor() as cursor:
        # Whoever looks first is the victim, so the other one is made to look late.
        cursor.execute(f"SET deadlock_timeout = '1min'; BEGIN; {update} 2")
        waiting = threading.Thread(target=cursor.execute, args=(f"{update} 1",))
        waiting.start()
        try:
            session.execute(text(f"{update} 2"))
        finally:
            session.rollback()
            waiting.join()


def _killed(session: Session, box: Sandbox) -> None:
    pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with closing(box.postgres.connect()) as other, other.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    session.execute(text("SELECT 1"))


def _slow(session: Session, box: Sandbox) -> None:
    session.execute(text("SET LOCAL statement_timeout = '20ms'"))
    session.execute(text("SELECT pg_sleep(20)"))


def _read_only(session: Session, box: Sandbox) -> None:
    session.connection(execution_options={"postgresql_readonly": True})
    session.execute(text("INSERT INTO problem_parent (id, name) VALUES (3, :name)"), {"name": CANARY})


def _demoted(session: Session, box: Sandbox) -> None:
    # What a standby says to a session that did not ask to be read-only.
    session.execute(text("SET TRANSACTION READ ONLY"))
    session.execute(text("INSERT INTO problem_parent (id, name) VALUES (3, :name)"), {"name": CANARY})


_INSERT = "INSERT INTO problem_parent (id, name, amount, during) VALUES"

CASES: dict[str, tuple[Work, Expected]] = {
    "unique": (
        _says(f"{_INSERT} (3, :name, 1, NULL)", name=CANARY),
        Expected(409, "duplicate", "problem_name"),
    ),
    "primary key": (
        _says(f"{_INSERT} (1, :name, 1, NULL)", name=f"{CANARY}-2"),
        Expected(409, "duplicate", "problem_number"),
    ),
    "exclusion": (
        _says(f"{_INSERT} (3, :name, 1, '[2,3)')", name=f"{CANARY}-2"),
        Expected(409, "duplicate", "problem_during"),
    ),
    "nothing to refer to": (
        _says("INSERT INTO problem_child VALUES (:parent)", parent=731650927),
        Expected(409, "reference", "problem_parent_of"),
    ),
    "still referred to": (
        _says("DELETE FROM problem_parent WHERE name = :name", name=CANARY),
        Expected(409, "reference", "problem_parent_of"),
    ),
    "nothing to refer to, at COMMIT": (
        _says("INSERT INTO problem_child VALUES (NULL, :later)", later=731650927),
        Expected(409, "reference", "problem_later"),
    ),
    "missing": (_says(f"{_INSERT} (731650927, NULL, 1, NULL)"), Expected(422, "invalid")),
    "check": (
        _says(f"{_INSERT} (3, :name, -1, NULL)", name=f"{CANARY}-2"),
        Expected(422, "invalid", "problem_amount"),
    ),
    "too long": (
        _says(f"{_INSERT} (3, :name, 1, NULL)", name=CANARY * 9),
        Expected(422, "invalid"),
    ),
    "too large": (_says(f"{_INSERT} (:id, 'x', 1, NULL)", id=731650927_000), Expected(422, "invalid")),
    "no number": (_says("SELECT CAST(CAST(:n AS text) AS int)", n=CANARY), Expected(422, "invalid")),
    "division by zero": (_says("SELECT 1 / CAST(:n AS int)", n=0), Expected(422, "invalid")),
    "statement timeout": (_slow, Expected(504, "timed-out")),
    "locked": (_locked, Expected(503, "locked", retry_after="1")),
    "lock timeout": (_waited, Expected(503, "locked", retry_after="1")),
    "serialization failure": (_overtaken, Expected(503, "conflict", retry_after="1")),
    "deadlock": (_deadlocked, Expected(503, "conflict", retry_after="1")),
    "read-only": (_read_only, Expected(503, "read-only", retry_after="5")),
    "demoted": (_demoted, Expected(503, "connection-lost", retry_after="1")),
    "undefined table": (_says("SELECT * FROM problem_nowhere"), Expected(500, "fault")),
    "no permission": (_says("SELECT * FROM pg_authid"), Expected(500, "fault")),
    "syntax": (_says("SELEKT 1"), Expected(500, "fault")),
    "a fault that quotes": (
        _says("DO $$ BEGIN RAISE EXCEPTION 'raised' USING DETAIL = concat('canary-', 731650926 + 1); END $$"),
        Expected(500, "fault"),
    ),
    "killed": (_killed, Expected(503, "connection-lost", retry_after="1")),
}


def create_service(box: Sandbox, settings: Settings, driver: str) -> FastAPI:
    """Make the service with one of `DRIVERS`; ``/cases/{case}`` does what the case says."""
    app = FastAPI(
        lifespan=lifespan(settings.model_copy(update=choice_of(driver))), responses=problem_responses
    )
    install_error_handlers(app, http_errors=True)

    works = {case: work for case, (work, _) in CASES.items()} | {"a row": _says("SELECT 1")}

    def do(case: str, session: SessionDep) -> str:
        works[case](session, box)
        return "done"

    async def do_async(case: str, session: AsyncSessionDep) -> str:
        await session.run_sync(works[case], box)
        return "done"

    app.add_api_route("/cases/{case}", do_async if is_on_loop(driver) else do, methods=["POST"])
    return app
