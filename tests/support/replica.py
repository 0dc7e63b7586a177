"""How do two PostgreSQL servers, a primary and its standby, change places?"""

import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2

from ledger_db.sandbox.postgres import ADMIN, EmbeddedPostgres
from ledger_db.sandbox.processes import Account, spawn
from ledger_db.sandbox.programs import find_postgres, reachable
from tests.support.endpoint import HOST, Endpoint, endpoint
from tests.support.folders import passable_folder
from tests.support.waiting import eventually

PASSWORD = "of-both-servers"
TABLE = "failover_rows"


class Pair:
    """
    Two servers in a folder.

    Attributes:
        primary: The one that takes writes now.

        standby: The other one, which follows it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # No namespace: none can be made where threads run, and a fork starts the watchers of open managers.
        self._account: Account = "nobody" if os.geteuid() == 0 else "plain"
        self.primary = self._server("one")
        self.primary.begin()
        self.primary.complete()
        self.primary.start()
        self.execute(f"CREATE TABLE {TABLE} (id serial PRIMARY KEY, writer text)")
        self.standby = self._server("two")
        self._copy_to("two")
        self.standby.start()

    def execute(self, statement: str, server: EmbeddedPostgres | None = None) -> Any:
        """Do something on the primary, or on the *server* that is named, and return its first value."""
        with closing(self.connect(server)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone()[0] if cursor.description else None

    def connect(self, server: EmbeddedPostgres | None = None) -> Any:
        """Return a superuser's connection."""
        port = (server or self.primary).port
        connection = psycopg2.connect(
            host=HOST, port=port, user=ADMIN, password=PASSWORD, dbname="postgres", connect_timeout=5
        )
        connection.autocommit = True
        return connection

    def fail_over(self) -> None:
        """Promote the standby; the old primary comes back as the new one's standby, at its old address."""
        # A primary that shuts down in good order sends all it has first, so that neither lacks anything.
        eventually(self._is_followed, "the standby is connected")
        self.primary.stop()
        self.execute("SELECT pg_promote()", self.standby)
        self._let_follow(self.primary, self.standby)
        self.primary.start()
        self.primary, self.standby = self.standby, self.primary

    def _is_followed(self) -> bool:
        return bool(self.execute("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"))

    def lead(self, front: Endpoint) -> None:
        """Let *front* lead to the primary."""
        assert self.primary.port is not None
        front.leads_to = self.primary.port

    def stop(self) -> None:
        """End both."""
        self.standby.abandon()
        self.primary.abandon()

    def _let_follow(self, server: EmbeddedPostgres, leader: EmbeddedPostgres) -> None:
        data = server.log_file.parent / "data"
        with (data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = '{_source(leader)}'\n")
        signal = data / "standby.signal"
        signal.touch()
        os.chown(signal, data.stat().st_uid, data.stat().st_gid)

    def _server(self, name: str) -> EmbeddedPostgres:
        return EmbeddedPostgres(
            self._folder / name,
            admin_password=PASSWORD,
            give_up=threading.Event(),
            account=self._account,
        )

    def _copy_to(self, name: str) -> None:
        programs = find_postgres()
        if self._account == "nobody":
            programs = reachable(programs, self._folder / "programs")
        command: list[str | Path] = [programs / "pg_basebackup", "--dbname", _source(self.primary)]
        command += ["--pgdata", self._folder / name / "data", "--write-recovery-conf", "--no-sync"]
        copying = spawn(
            [*command, "--checkpoint=fast"], self._folder / name, name="copy", account=self._account
        )
        assert copying.wait(60) == 0, (self._folder / name / "copy.log").read_text()


def _source(server: EmbeddedPostgres) -> str:
    return f"host={HOST} port={server.port} user={ADMIN} password={PASSWORD}"


@contextmanager
def pair_of_servers() -> Iterator[tuple[Pair, Endpoint]]:
    """Start a primary, its standby, and an endpoint that leads to the primary until it is told otherwise."""
    with passable_folder() as folder:
        pair = Pair(folder)
        try:
            assert pair.primary.port is not None
            with endpoint(pair.primary.port) as front:
                yield pair, front
        finally:
            pair.stop()
