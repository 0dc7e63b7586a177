"""How does a real PgBouncer stand before the sandbox's PostgreSQL?"""

import os
import shutil
import signal
import socket
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from ledger_db.sandbox import Sandbox
from ledger_db.sandbox.ports import HOST, free_port
from ledger_db.sandbox.processes import end, nobody, spawn
from tests.support.folders import passable_folder
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

# The pooler asks the server for the verifier of whoever logs in, so a rotation has not to be told to it.
_LOOKUP = """
CREATE FUNCTION {user}.lookup(who text) RETURNS TABLE (usename name, passwd text)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog
AS 'SELECT rolname, rolpassword FROM pg_authid WHERE rolname = who AND rolcanlogin'
"""
_CONFIGURATION = """
[databases]
* = host={server} port={server_port} auth_user={user}
[pgbouncer]
listen_addr = {host}
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
auth_query = SELECT usename, passwd FROM {user}.lookup($1)
admin_users = {user}
pool_mode = {mode}
"""


class PgBouncer:
    """
    A pooler that runs.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, port: int, user: str, password: str) -> None:
        self.port = port
        self._login = {"host": HOST, "port": port, "user": user, "password": password}

    def command(self, words: str) -> None:
        """Tell its console something."""
        connection = psycopg2.connect(**self._login, dbname="pgbouncer", connect_timeout=5)
        # Its console knows no transactions.
        connection.autocommit = True
        with closing(connection), connection.cursor() as cursor:
            cursor.execute(words)

    def answers(self) -> bool:
        """Say whether it takes connections."""
        try:
            socket.create_connection((HOST, self.port), timeout=5).close()
        except ConnectionRefusedError:
            return False
        return True


@contextmanager
def pgbouncer(box: Sandbox, mode: str, **options: Any) -> Iterator[PgBouncer]:
    """
    Start a PgBouncer before *box*, and end it.

    Args:
        box: What it leads to.

        mode: Its ``pool_mode``.

        options: Of its own.
    """
    if PROGRAM is None:
        pytest.skip("needs PgBouncer (Debian's package pgbouncer)")
    user, password = f"pooler_{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    with passable_folder() as folder, _user_of_its_own(box, user, password):
        pooler = PgBouncer(free_port(), user, password)
        users = folder / "users.txt"
        users.write_text(f'"{user}" "{password}"\n')
        configuration = folder / "pgbouncer.ini"
        configuration.write_text(
            _CONFIGURATION.format(
                server=box.postgres.host, server_port=box.postgres.port, user=user, users=users,
                host=HOST, port=pooler.port, mode=mode,
            )
            + "".join(f"{name} = {value}\n" for name, value in options.items())
        )  # fmt: skip
        as_root = os.geteuid() == 0
        if as_root:
            # It refuses to run as root, and reads its files as who it runs as.
            for path in (folder, users, configuration):
                os.chown(path, *nobody())
        command: list[str | Path] = [PROGRAM, configuration]
        process = spawn(command, folder, name="pgbouncer", account="nobody" if as_root else "plain")
        try:
            eventually(pooler.answers, "PgBouncer takes connections")
            yield pooler
        finally:
            end(process, signal.SIGTERM)


@contextmanager
def _user_of_its_own(box: Sandbox, user: str, password: str) -> Iterator[None]:
    with closing(box.postgres.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {user} LOGIN PASSWORD '{password}'")
        cursor.execute(f"CREATE SCHEMA {user}")
        cursor.execute(f"GRANT USAGE ON SCHEMA {user} TO {user}")
        cursor.execute(_LOOKUP.format(user=user))
        try:
            yield
        finally:
            cursor.execute(f"DROP SCHEMA {user} CASCADE")
            cursor.execute(f"DROP ROLE {user}")
