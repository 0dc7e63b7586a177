"""Do login tokens come and go without any connection being disturbed?"""

import json
from contextlib import closing

import pytest
from sqlalchemy import text

from ledger_db import ConnectionManager, LoginRefused, RdsIamSource, Settings
from ledger_db.sandbox import Sandbox
from tests.support.waiting import eventually


class Tokens:
    """Signs with the password that the role has now: to PostgreSQL a token is nothing else."""

    def __init__(self, box: Sandbox) -> None:
        self._box = box
        self.signed = 0
        self.expired = False

    def __call__(self, host: str, port: int, username: str) -> str:
        """Sign a token."""
        self.signed += 1
        if self.expired:
            return "expired"
        with closing(self._box.client()) as client:
            secret = client.get_secret_value(SecretId=self._box.database_secret_id)["SecretString"]
        return str(json.loads(secret)["password"])


def source(box: Sandbox, tokens: Tokens) -> RdsIamSource:
    """Return a source for the role that AWSCURRENT names."""
    with closing(box.client()) as client:
        secret = json.loads(client.get_secret_value(SecretId=box.database_secret_id)["SecretString"])
    return RdsIamSource(
        secret["username"],
        secret["host"],
        port=int(secret["port"]),
        database=secret["dbname"],
        sign=tokens,
    )


def backend_of(db: ConnectionManager) -> int:
    """Return which session answers."""
    with db.session() as session:
        return int(session.execute(text("SELECT pg_backend_pid()")).scalar_one())


def test_a_new_token_leaves_the_sessions_alone(environment: Sandbox) -> None:
    """Tokens are refreshed ahead, again and again, and the pool keeps its connection."""
    tokens = Tokens(environment)
    settings = Settings(refresh_interval_seconds=0.05, redis_secret_id=None)
    with ConnectionManager(settings, database_source=source(environment, tokens)) as db:
        before = backend_of(db)
        eventually(lambda: tokens.signed > 10, "tokens are refreshed")

        assert backend_of(db) == before
        assert db.health().servers[0].credentials.generation > 5


def test_a_token_that_has_expired_is_replaced_by_the_login_that_notices(environment: Sandbox) -> None:
    """Nobody polled in time: the refused login signs a new one and goes through."""
    tokens = Tokens(environment)
    settings = Settings(refresh_interval_seconds=3600, redis_secret_id=None)
    with ConnectionManager(settings, database_source=source(environment, tokens)) as db:
        before = backend_of(db)
        environment.rotate_database("single-user")
        db.engine.pool.connect().invalidate()

        assert backend_of(db) != before
        assert tokens.signed == 2


def test_tokens_that_never_work_are_given_up(environment: Sandbox) -> None:
    """The role was not granted rds_iam: refused, with the user and the server in the message."""
    tokens = Tokens(environment)
    tokens.expired = True
    settings = Settings(startup_timeout_seconds=4, redis_secret_id=None)
    with pytest.raises(LoginRefused, match="rds-iam:ledger_app_"):
        ConnectionManager(settings, database_source=source(environment, tokens)).open()
