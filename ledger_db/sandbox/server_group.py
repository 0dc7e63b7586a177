"""What runs in one sandbox, in which order is it started, and what of it is kept?"""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledger_db.errors import ConfigurationError
from ledger_db.sandbox import postgres, redis, seed
from ledger_db.sandbox.folder import KEPT, Folder
from ledger_db.sandbox.ports import HOST, free_port, is_free
from ledger_db.sandbox.postgres import EmbeddedPostgres
from ledger_db.sandbox.processes import choose_account, write_private
from ledger_db.sandbox.redis import EmbeddedRedis

if TYPE_CHECKING:
    from psycopg2.extensions import connection as PostgresConnection  # noqa: N812 - it is a class

    from ledger_db.sandbox.front import TLSFront
    from ledger_db.sandbox.rotate import SandboxRotator
    from ledger_db.sandbox.tls import TLSFiles
    from ledger_db.stand_in.server import SecretsManagerStandIn

_ATTEMPTS = 5


class ServerGroup:
    """
    Everything that runs in one sandbox.  The main thread alone uses it.

    Args:
        orders: What the creator wants.

        give_up: Set when a start that has not ended yet should end at once.
    """

    def __init__(self, orders: dict[str, Any], give_up: threading.Event) -> None:
        self._give_up = give_up
        self._begun = time.monotonic()
        self._tls_wanted = bool(orders.get("tls"))
        account = orders.get("account") or choose_account()
        directory = orders.get("directory")
        open_to_nobody = account == "nobody"
        self.folder: Folder = (
            Folder.temporary(open_to_nobody=open_to_nobody)
            if directory is None
            else Folder.kept(Path(directory), keep=bool(orders.get("keep")), open_to_nobody=open_to_nobody)
        )
        # Undone in reverse order, all of it even if one of them fails; the folder goes last.
        self._closing = contextlib.ExitStack()
        self._closing.callback(self.folder.close)
        try:
            self._plan(account)
        except BaseException:
            self.close()
            raise

    def _plan(self, account: Any) -> None:
        path = self.folder.path
        kept = self._kept()
        self._ports: dict[str, int] = kept.get("ports", {})
        self._passwords: dict[str, str] = kept.get("passwords", {}) or {
            name: seed.new_password() for name in ("postgres", "redis")
        }
        # With TLS the advertised port may belong to a front, and the server gets one that nobody is told.
        hidden = self._tls_wanted
        self._postgres = EmbeddedPostgres(
            path / "postgres",
            admin_password=self._passwords["postgres"],
            give_up=self._give_up,
            account=account,
            port=None if hidden else self._port_as_before("postgres"),
        )
        self._redis = EmbeddedRedis(
            path / "redis",
            admin_password=self._passwords["redis"],
            give_up=self._give_up,
            port=None if hidden else self._port_as_before("redis"),
        )
        # Asked now: soon after initdb begins it looks as if there had been a cluster all along.
        self._is_new = self._postgres.is_new
        self._fronts: dict[str, TLSFront] = {}
        self._tls: TLSFiles | None = None
        self._stand_in: SecretsManagerStandIn
        self._rotator: SandboxRotator | None = None
        self._application_passwords = {
            name: seed.new_password() for name in ("postgres", "redis", "announcer")
        }

    def start(self) -> dict[str, Any]:
        """
        Start everything.

        Returns:
            The report for the creator.

        Raises:
            LedgerDBError: Something did not start, or is missing on this machine.
        """
        self._closing.callback(self._end_servers)
        # Both servers are on their way before anything heavy is imported: that happens while they work.
        self._postgres.begin()
        if self._redis.is_new:
            self._redis.write_users(*seed.redis_users(self._application_passwords))
        self._redis.launch()
        self._make_certificates()
        self._start_stand_in()
        self._start_postgres()
        self._redis.complete()
        self._start_fronts()
        self._seed()
        self._remember()
        return self._report()

    def obey(self, command: str, details: Any = None) -> None:
        """
        Do what one line of the creator says: ``<server>.<stop|start|kill>`` or ``secrets_manager.inject``.

        Raises:
            LedgerDBError: It could not be done, or there is no such command.
        """
        if command == "secrets_manager.inject":
            self._inject(details)
            return
        server, _, verb = command.partition(".")
        servers: dict[str, Any] = {
            "postgres": self._postgres,
            "redis": self._redis,
            "secrets_manager": self._stand_in,
        }
        if server not in servers or verb not in {"start", "stop", "kill"}:
            raise ConfigurationError(f"{command!r} is no command of a sandbox; see Sandbox")
        getattr(servers[server], verb)()
        front = self._fronts.get(server)
        if front is None:
            return
        # A front without its server would accept connections only to drop them; a server that is down refuses
        # them.  Second, so that the server's farewell still reaches its clients.
        if verb == "start":
            front.start()
        else:
            front.stop()

    def close(self) -> None:
        """End everything that was started."""
        self._closing.close()

    def _inject(self, faults: list[dict[str, Any]]) -> None:
        from ledger_db.stand_in.faults import Fault  # noqa: PLC0415 - servers first

        self._stand_in.inject(*(Fault.from_json(fault) for fault in faults))

    def _kept(self) -> dict[str, Any]:
        try:
            kept: dict[str, Any] = json.loads((self.folder.path / KEPT).read_text())
        except FileNotFoundError:
            # It is written last.  Without it what lies here is half a sandbox, whose passwords nobody knows.
            self.folder.clear()
            return {}
        except ValueError as error:
            raise ConfigurationError(
                f"{self.folder.path / KEPT} is damaged and the data with it is lost; "
                f"remove the folder {self.folder.path}"
            ) from error
        return kept

    def _port_as_before(self, server: str) -> int | None:
        port = self._ports.get(server)
        return port if port is not None and is_free(port) else None

    def _remember(self) -> None:
        if self.folder.keep:
            kept = {"ports": self._ports, "passwords": self._passwords}
            write_private(self.folder.path / KEPT, json.dumps(kept))

    def _make_certificates(self) -> None:
        if self._tls_wanted:
            from ledger_db.sandbox.tls import certificates  # noqa: PLC0415 - only with TLS

            self._tls = certificates(self.folder.path / "tls")

    def _start_stand_in(self) -> None:
        from ledger_db.stand_in.server import SecretsManagerStandIn  # noqa: PLC0415 - servers first

        for port in _candidates(self._port_as_before("secrets_manager")):
            stand_in = SecretsManagerStandIn(state=self.folder.path / "secrets.json", host=HOST, port=port)
            try:
                stand_in.start()
            except OSError:
                continue
            stand_in.register(seed.ROTATION_FUNCTION_ARN, self._rotate)
            self._stand_in = stand_in
            self._ports["secrets_manager"] = port
            self._closing.callback(stand_in.stop)
            return
        raise ConfigurationError(f"no free port for the Secrets Manager stand-in on {HOST}; end some servers")

    def _rotate(self, event: dict[str, str]) -> None:
        # In a thread of the stand-in.  Two at once may both make a rotator; either is as good as the other.
        if self._rotator is None:
            from ledger_db.sandbox.rotate import function  # noqa: PLC0415 - as above

            self._rotator = function(self._stand_in.url, None if self._tls is None else self._tls.ca_file)
        self._rotator(event)

    def _start_postgres(self) -> None:
        # What seeding needs is imported while initdb works.
        import psycopg2  # noqa: F401, PLC0415 - as above

        self._postgres.complete()
        if self._tls is not None and self._postgres.speaks_tls():
            self._postgres.use_tls(self._tls.certificate_file, self._tls.key_file)
            self._postgres.port = self._port_as_before("postgres")
        self._postgres.start()

    def _start_fronts(self) -> None:
        plain = {"postgres": self._postgres.port, "redis": self._redis.port}
        for server, port in plain.items():
            assert port is not None
            if self._tls is None or (server == "postgres" and self._postgres.native_tls):
                self._ports[server] = port
            else:
                self._ports[server] = self._start_front(server, port)

    def _start_front(self, server: str, backend_port: int) -> int:
        from ledger_db.sandbox import front  # noqa: PLC0415 - asyncio takes 45 ms that only TLS needs

        assert self._tls is not None
        greeting = front.postgres_greeting if server == "postgres" else front.redis_greeting
        for port in _candidates(self._port_as_before(server)):
            candidate = front.TLSFront(
                port, backend_port, context=self._tls.server_context(), greeting=greeting
            )
            try:
                candidate.start()
            except OSError:
                continue
            self._fronts[server] = candidate
            self._closing.callback(candidate.stop)
            return port
        raise ConfigurationError(f"no free port for TLS on {HOST}; end some servers and try again")

    def _seed(self) -> None:
        passwords = self._application_passwords
        if self._is_new:
            connection = self._connect()
            try:
                seed.seed_postgres(connection, password=passwords["postgres"])
            finally:
                connection.close()
        seed.seed_secrets(
            self._stand_in.url,
            {
                seed.ADMIN_SECRET_ID: self._value(
                    "postgres", postgres.ADMIN, self._passwords["postgres"], "postgres"
                ),
                seed.REDIS_ADMIN_SECRET_ID: self._value("redis", redis.ADMIN, self._passwords["redis"]),
                seed.DATABASE_SECRET_ID: {
                    **self._value("postgres", seed.FIRST_ROLE, passwords["postgres"], seed.DATABASE),
                    "users": [seed.FIRST_ROLE, seed.SECOND_ROLE],
                    "masterarn": seed.ADMIN_SECRET_ID,
                },
                seed.REDIS_SECRET_ID: {
                    **self._value("redis", seed.REDIS_USER, passwords["redis"]),
                    "masterarn": seed.REDIS_ADMIN_SECRET_ID,
                },
                seed.ANNOUNCEMENTS_SECRET_ID: {
                    **self._value("redis", seed.ANNOUNCER, passwords["announcer"]),
                    "masterarn": seed.REDIS_ADMIN_SECRET_ID,
                },
            },
        )

    def _connect(self) -> "PostgresConnection":
        import psycopg2  # noqa: PLC0415 - the servers are started first

        connection = psycopg2.connect(
            host=HOST,
            port=self._postgres.port,
            user=postgres.ADMIN,
            password=self._passwords["postgres"],
            dbname="postgres",
            sslmode="require" if self._postgres.native_tls else "disable",
        )
        connection.autocommit = True
        return connection

    def _value(self, engine: str, username: str, password: str, dbname: str | None = None) -> dict[str, Any]:
        value = {
            "engine": engine,
            "host": HOST,
            "port": self._ports[engine],
            "username": username,
            "password": password,
        }
        return value if dbname is None else {**value, "dbname": dbname}

    def _end_servers(self) -> None:
        # A kept cluster is shut down in good order; nobody will read the other one.
        if self.folder.keep:
            self._postgres.stop()
        else:
            self._postgres.abandon()
        self._redis.stop()

    def _report(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder.path),
            "seconds": round(time.monotonic() - self._begun, 3),
            "host": HOST,
            "ports": self._ports,
            "admins": {"postgres": postgres.ADMIN, "redis": redis.ADMIN},
            "passwords": self._passwords,
            "logs": {"postgres": str(self._postgres.log_file), "redis": str(self._redis.log_file)},
            "url": self._stand_in.url,
            "tls": None
            if self._tls is None
            else {
                "ca_file": str(self._tls.ca_file),
                "certificate_file": str(self._tls.certificate_file),
                "key_file": str(self._tls.key_file),
            },
        }


def _candidates(first: int | None) -> Iterator[int]:
    """Yield the port of last time, if there was one, and then free ones."""
    if first is not None:
        yield first
    for _ in range(_ATTEMPTS):
        yield free_port()
