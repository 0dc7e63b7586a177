"""How does a manager write to a pair of servers?"""

from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from ledger_db import Settings
from ledger_db.sandbox.postgres import ADMIN
from ledger_db.transactions.meaning import Meaning, meaning_of
from tests.support.any_driver import Client
from tests.support.endpoint import HOST
from tests.support.replica import PASSWORD, TABLE


def settings_for(port: int | None, **changes: Any) -> Settings:
    """Return settings that lead to a *port* of this machine."""
    assert port is not None
    login = {"database_user": ADMIN, "database_password": PASSWORD, "database_name": "postgres"}
    patient = {"database_host": HOST, "startup_timeout_seconds": 30, "retry_patience_seconds": 10}
    return Settings(**login, database_port=port, **(patient | changes))


def insert(session: Session) -> None:
    """Write."""
    session.execute(text(f"INSERT INTO {TABLE} (writer) VALUES ('somebody')"))


def attempt(client: Client, **options: Any) -> Meaning | None:
    """Write, and return what the error means; None if there was none."""
    try:
        client.begin(insert, **options)
    except SQLAlchemyError as error:
        return meaning_of(error)
    return None


def refuse_writes_from_now_on(session: Session) -> None:
    """Leave a session that answers as one of a server that was demoted."""
    session.execute(text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
