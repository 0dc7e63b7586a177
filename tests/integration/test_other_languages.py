"""Does a service understand a real PostgreSQL that speaks another language?"""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from ledger_db import ConfigurationError, LoginRefused, Settings
from ledger_db.sandbox.postgres import ADMIN, EmbeddedPostgres
from tests.support.any_driver import DRIVERS, client_of
from tests.support.folders import passable_folder

if TYPE_CHECKING:
    from ledger_db.sandbox.processes import Account

# The server of the wheels has no catalogues, Debian's has.
PROGRAMS = Path("/usr/lib/postgresql/15/bin")
LANGUAGES = {"de_DE": "fehlgeschlagen", "ja_JP": "失敗しました", "ru_RU": "не прошёл"}


@contextmanager
def server_in(language: str, folder: Path) -> Iterator[EmbeddedPostgres]:
    """Start a server that speaks *language* from the first word on."""
    account: Account = "nobody" if os.geteuid() == 0 else "plain"
    server = EmbeddedPostgres(
        folder / "server", admin_password="of-this-server", give_up=threading.Event(), account=account
    )
    server.begin()
    server.complete()
    with (folder / "server/data/postgresql.auto.conf").open("a") as settings:
        settings.write(f"lc_messages = '{language}.UTF-8'\n")
    server.start()
    try:
        yield server
    finally:
        server.abandon()


def locale_of(language: str, folder: Path) -> Path:
    """Make the locale of *language* in *folder*, which the machine may not have."""
    compiler, source = shutil.which("localedef"), Path("/usr/share/i18n/locales", language)
    if compiler is None or not source.exists():
        pytest.skip("needs localedef and the sources of the locales (Debian's package locales)")
    folder.mkdir()
    command: list[str | Path] = [
        compiler,
        "--inputfile",
        language,
        "--charmap",
        "UTF-8",
        folder / f"{language}.UTF-8",
    ]
    subprocess.run(command, check=True, capture_output=True)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


@pytest.fixture(params=LANGUAGES)
def foreign(request: pytest.FixtureRequest) -> Iterator[tuple[str, EmbeddedPostgres]]:
    """A language, and a server that speaks it."""
    if not (PROGRAMS / "postgres").exists():
        pytest.skip("needs Debian's package postgresql-15, whose server has message catalogues")
    with pytest.MonkeyPatch.context() as patch, passable_folder() as folder:
        patch.setenv("LEDGER_DB_PG_BIN", str(PROGRAMS))
        patch.setenv("LOCPATH", str(locale_of(request.param, folder / "locales")))
        with server_in(request.param, folder) as server:
            yield request.param, server


def settings_for(server: EmbeddedPostgres, **changes: Any) -> Settings:
    """Lead to *server*, as its administrator."""
    usual = {
        "database_user": ADMIN,
        "database_password": "of-this-server",
        "database_host": "127.0.0.1",
        "database_port": server.port,
        "database_name": "postgres",
        "login_patience_seconds": 0.5,
    }
    return Settings(**{**usual, **changes})


def test_a_refused_login_is_one_in_every_language(foreign: tuple[str, EmbeddedPostgres]) -> None:
    """The same error on every driver, although libpq keeps the code of a failed connect to itself."""
    language, server = foreign
    with pytest.raises(psycopg2.OperationalError, match=LANGUAGES[language]):
        psycopg2.connect(host="127.0.0.1", port=server.port, user="app", password="x", dbname="postgres")

    for driver in DRIVERS:
        wrong = settings_for(server, database_password="wrong")
        with pytest.raises(LoginRefused), client_of(driver, wrong):
            pass
        nowhere = settings_for(server, database_name="nowhere", startup_timeout_seconds=30)
        with pytest.raises(ConfigurationError), client_of(driver, nowhere):
            pass
        with client_of(driver, settings_for(server)) as client:
            assert (
                client.begin(lambda session: session.connection().exec_driver_sql("SELECT 1").scalar()) == 1
            )
