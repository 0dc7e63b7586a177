"""Credentials that RDS makes out of an IAM role: a signed token in place of a password."""

import time
from collections.abc import Callable
from typing import Any

from ledger_db.answers.aws_client import make_client
from ledger_db.answers.aws_errors import refusal_of
from ledger_db.answers.secret import DATABASES, Password
from ledger_db.credentials.model import Credentials, Stage, checked_host

TOKEN_LIFETIME_SECONDS = 900.0
"""RDS accepts a token for 15 minutes (Amazon RDS User Guide, "IAM database authentication")."""

Signer = Callable[[str, int, str], str]


class RdsIamSource:
    """
    Signs a login token for one RDS user.

    Signing is local: no network, except for fetching the role's own credentials.  A token only opens the
    door: sessions live on after it has expired, so all tokens of a user share one stamp and a new one does
    not make any connection stale.  The server must be reached over TLS.
    """

    __module__ = "ledger_db"

    rotates = True

    def __init__(
        self,
        username: str,
        host: str,
        *,
        port: int = 5432,
        database: str | None = None,
        region: str | None = None,
        sign: Signer | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """
        Sign tokens for *username* on *host*.

        Args:
            username: A role that was granted ``rds_iam``.

            host: The endpoint that the token is for; a CNAME will be refused.

            port: TCP port.

            database: Database to connect to; ``postgres`` if None.

            region: AWS region of the server; from the environment if None.

            sign: Makes a token out of host, port and user; boto3 if None.

            now: POSIX time in seconds.
        """
        self._username = username
        self._host = checked_host(host)
        self._port = port
        self._database = database
        self._region = region
        self._sign = sign or self._sign_with_boto3
        self._now = now
        self._client: Any = None

    @property
    def name(self) -> str:
        """The user and the server."""
        return f"rds-iam:{self._username}@{self._host}:{self._port}"

    def fetch(self, stage: Stage) -> Credentials | None:
        """
        Sign a new token; there is never a pending one.

        Raises:
            CredentialsUnavailable: The role's own credentials could not be fetched just now.

            ConfigurationError: There are no AWS credentials, or no region.
        """
        if stage != "AWSCURRENT":
            return None
        signed_at = self._now()
        return Credentials(
            username=self._username,
            password=Password(self._sign(self._host, self._port, self._username)),
            version=f"token-{signed_at:.3f}",
            host=self._host,
            port=self._port,
            database=self._database or DATABASES["PostgreSQL"],
            names_database=self._database is not None,
            stamp=self.name,
            expires_at=signed_at + TOKEN_LIFETIME_SECONDS,
        )

    def forget_client(self) -> None:
        """Make a new client at the next token: after a fork, sockets would be shared with the parent."""
        self._client = None

    def _sign_with_boto3(self, host: str, port: int, username: str) -> str:
        try:
            if self._client is None:
                self._client = make_client("rds", region=self._region)
            token: str = self._client.generate_db_auth_token(DBHostname=host, Port=port, DBUsername=username)
        except Exception as error:
            refusal = refusal_of(error, "rds-db")
            if refusal.outdates_client:
                self._client = None
            raise refusal.as_error("AWS", f"a token for {self.name}") from error
        return token
