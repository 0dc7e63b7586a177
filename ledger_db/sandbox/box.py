"""The sandbox as a program uses it: three servers, seeded, and the environment that leads to them."""

import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ledger_db.errors import ManagerClosed
from ledger_db.sandbox import rotate, seed
from ledger_db.sandbox.control import SupervisorProcess
from ledger_db.sandbox.environment import PROFILE_FILE, PROFILES, environment_of
from ledger_db.sandbox.processes import Account, write_private
from ledger_db.sandbox.servers import PostgresServer, RedisServer, SecretsManagerServer
from ledger_db.sandbox.tls import TLSFiles

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient


class Sandbox:
    """
    A real PostgreSQL, a real Valkey and a Secrets Manager stand-in, for as long as a ``with`` block.

    Everything listens on the loopback address, on free ports, with passwords made up for the occasion.
    Nothing is left when the block ends or the program does, in whatever way.  Safe to use from several
    threads.

    Args:
        directory: An empty or new folder for the files; a temporary one if None.  It is removed in the end
            unless it is kept.

        keep: Whether a later sandbox in the same *directory* finds the data, the passwords and, if they are
            free, the ports of this one.

        tls: Whether both servers insist on TLS.

        account: As whom PostgreSQL runs if the caller is root; the best that works if None.
    """

    __module__ = "ledger_db.sandbox"

    database_secret_id = seed.DATABASE_SECRET_ID
    redis_secret_id = seed.REDIS_SECRET_ID
    admin_secret_id = seed.ADMIN_SECRET_ID
    redis_admin_secret_id = seed.REDIS_ADMIN_SECRET_ID
    announcements_secret_id = seed.ANNOUNCEMENTS_SECRET_ID
    rotation_function_arn = seed.ROTATION_FUNCTION_ARN

    postgres: PostgresServer
    redis: RedisServer
    secrets_manager: SecretsManagerServer
    directory: Path
    tls: TLSFiles | None
    seconds_to_start: float

    def __init__(
        self,
        *,
        directory: Path | None = None,
        keep: bool = False,
        tls: bool = False,
        account: Account | None = None,
    ) -> None:
        self._orders: dict[str, Any] = {
            "directory": None if directory is None else str(directory.expanduser().absolute()),
            "keep": keep,
            "tls": tls,
            "account": account,
        }
        self._supervisor: SupervisorProcess | None = None
        self._client: SecretsManagerClient | None = None
        # Guards _client: of two that are made at once nobody would close the first.
        self._making_client = threading.Lock()
        # One rotation of a secret at a time, from its first step to its last.  That long wait is the purpose:
        # two that interleave would leave a password in the secret that the server does not have.
        self._rotating_database = threading.Lock()
        self._rotating_redis = threading.Lock()

    if not TYPE_CHECKING:
        # A type checker that saw it would take every misspelt name for one of ours.
        def __getattr__(self, name: str) -> Any:
            # Reached only for what start() has not set yet.
            if name in Sandbox.__annotations__:
                raise ManagerClosed(
                    f"the sandbox was not started, so it has no {name}; use it in a with block"
                )
            raise AttributeError(name)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """
        Start the servers; return when all of them are ready and seeded.

        Raises:
            ConfigurationError: Something is missing on this machine, or the folder cannot be used.

            ServerUnreachable: A server did not start; the message has the last lines of its log.
        """
        if self._supervisor is not None:
            raise ManagerClosed(
                "the sandbox was started already; make another one for a second set of servers"
            )
        # Known before it starts: a Ctrl-C that arrives in the very moment when it is ready must find it.
        self._supervisor = supervisor = SupervisorProcess(self._orders)
        try:
            self._take_over(supervisor.start(), supervisor)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the servers, and remove their files unless they are kept.  May be called again."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._supervisor is not None:
            self._supervisor.close()

    @property
    def is_running(self) -> bool:
        """Whether the servers are being looked after; False as well if their supervisor was killed."""
        return self._supervisor is not None and self._supervisor.is_running

    @property
    def environment(self) -> dict[str, str]:
        """
        What leads an application, and boto3 in it, to these servers and to no others; no password is in it.

        An empty value is for a variable that must not be set.
        """
        own = {
            "LEDGER_DB_DATABASE_SECRET_ID": self.database_secret_id,
            "LEDGER_DB_REDIS_SECRET_ID": self.redis_secret_id,
            "LEDGER_DB_ANNOUNCEMENTS_SECRET_ID": self.announcements_secret_id,
            # Servers of one machine have no fleet to spare; what a rotation does is to be seen at once.
            "LEDGER_DB_RENEWAL_SPREAD_SECONDS": "0",
            "LEDGER_DB_ANNOUNCEMENT_SPREAD_SECONDS": "0",
        }
        if self.tls is not None:
            own |= {
                "LEDGER_DB_DATABASE_SSLMODE": "verify-full",
                "LEDGER_DB_DATABASE_SSLROOTCERT": str(self.tls.ca_file),
                "LEDGER_DB_REDIS_TLS": "true",
                "LEDGER_DB_REDIS_TLS_CA_FILE": str(self.tls.ca_file),
            }
        return environment_of(self.secrets_manager.url, self.directory, own)

    def client(self) -> "SecretsManagerClient":
        """Return a boto3 client for the Secrets Manager stand-in; the caller closes it."""
        return rotate.client_of(self.secrets_manager.url)

    def rotate_database(self, strategy: rotate.Strategy = "single-user", window_seconds: float = 0.0) -> str:
        """
        Rotate the application's PostgreSQL credentials, as AWS's rotation does.

        Args:
            strategy: ``single-user`` changes the password of the role in AWSCURRENT; ``alternating-users``
                gives a new one to the other role of the pair.

            window_seconds: Between the change on the server and AWSCURRENT.

        Returns:
            The version id that AWSCURRENT is on now.

        Raises:
            RotationFailed: A step failed; the message says which, and what is true now.
        """
        rotator = rotate.SandboxRotator(
            self._shared_client(), strategy, ca_file=self.postgres.ca_file, window_seconds=window_seconds
        )
        with self._rotating_database:
            return rotate.run(self.database_secret_id, rotator)

    def rotate_redis(self, window_seconds: float = 0.0) -> str:
        """
        Rotate the application's Redis password, as AWS's rotation for ElastiCache users does.

        The password before it stays valid until the next rotation.

        Args:
            window_seconds: Between the change on the server and AWSCURRENT.

        Returns:
            The version id that AWSCURRENT is on now.

        Raises:
            RotationFailed: A step failed; the message says which, and what is true now.
        """
        rotator = rotate.SandboxRotator(
            self._shared_client(), ca_file=self.redis.ca_file, window_seconds=window_seconds
        )
        with self._rotating_redis:
            return rotate.run(self.redis_secret_id, rotator)

    def _shared_client(self) -> "SecretsManagerClient":
        with self._making_client:
            if self._client is None:
                self._client = self.client()
            return self._client

    def _take_over(self, report: dict[str, Any], supervisor: SupervisorProcess) -> None:
        tls = report["tls"]
        self.tls = None if tls is None else TLSFiles(**{name: Path(path) for name, path in tls.items()})
        ca_file = None if self.tls is None else self.tls.ca_file
        self.directory = Path(report["folder"])
        write_private(self.directory / PROFILE_FILE, PROFILES)
        self.seconds_to_start = report["seconds"]
        self.postgres = PostgresServer(
            host=report["host"],
            port=report["ports"]["postgres"],
            database=seed.DATABASE,
            admin_user=report["admins"]["postgres"],
            admin_password=report["passwords"]["postgres"],
            log_file=Path(report["logs"]["postgres"]),
            ca_file=ca_file,
            _command=supervisor.command,
        )
        self.redis = RedisServer(
            host=report["host"],
            port=report["ports"]["redis"],
            admin_user=report["admins"]["redis"],
            admin_password=report["passwords"]["redis"],
            log_file=Path(report["logs"]["redis"]),
            ca_file=ca_file,
            _command=supervisor.command,
        )
        self.secrets_manager = SecretsManagerServer(url=report["url"], _command=supervisor.command)
