"""What does a service make of a server in other words: a pooler's, RDS Proxy's, another language's?"""

from typing import Any

import pytest

from ledger_db import ConfigurationError, LoginRefused, ServerUnreachable, Settings
from ledger_db.answers.reason import Reason
from ledger_db.answers.secret import Secret
from ledger_db.answers.tls import TLS
from ledger_db.rotation.postgres_login import probe
from ledger_db.rotation.protocol import Deadline
from ledger_db.testing.doubles import ScriptedPostgres
from tests.support.any_driver import client_of

# RDS Proxy's SQLSTATEs of what is awaited are assumed.
LATER = [
    ("08P01", "server login has been failing, try again later (server_login_retry)"),
    ("08P01", "server login has been failing, cached error: connect failed (server_login_retry)"),
    ("08P01", "pgbouncer cannot connect to server"),
    ("08P01", "no more connections allowed (max_client_conn)"),
    ("08P01", "query_wait_timeout"),
    ("08000", "Timed-out waiting to acquire database connection"),
    ("57P03", "das Datenbanksystem startet"),
    ("57P03", "система баз данных запускается"),
    ("53300", 'ロール"app"からの接続が多すぎます'),
]
AT_ONCE = [
    ("28000", "This RDS Proxy requires TLS connections", ConfigurationError),
    ("28000", "RDS Proxy supports only IAM, MD5, or SCRAM authentication.", ConfigurationError),
    ("08P01", "unsupported startup parameter: options", ConfigurationError),
    ("08P01", "no such database: x", ConfigurationError),
    ("08P01", "no such user", LoginRefused),
    ("28P01", "Passwort-Authentifizierung für Benutzer »app« fehlgeschlagen", LoginRefused),
    ("28P01", "authentification par mot de passe échouée pour l'utilisateur « app »", LoginRefused),
    ("28P01", 'ユーザー"app"のパスワード認証に失敗しました', LoginRefused),
    ("28000", "kein pg_hba.conf-Eintrag für Host »h«, Benutzer »app«, Datenbank »x«", ConfigurationError),
    ("3D000", 'база данных "x" не существует', ConfigurationError),
]


def settings_for(server: ScriptedPostgres, **changes: Any) -> Settings:
    """Lead to *server*, with credentials that never change."""
    return Settings(
        database_user="app",
        database_password="p",
        database_host="127.0.0.1",
        database_port=server.port,
        database_name="x",
        login_patience_seconds=1,
        **changes,
    )


@pytest.mark.parametrize(("sqlstate", "said"), LATER)
def test_what_passes_is_waited_for(driver: str, sqlstate: str, said: str) -> None:
    """A start asks again until its time is up, whoever said "later" and in which words."""
    with ScriptedPostgres(sqlstate, said) as server:
        settings = settings_for(server, startup_timeout_seconds=0.8)
        with pytest.raises(ServerUnreachable), client_of(driver, settings):
            pass

    assert server.logins > 1


@pytest.mark.parametrize(("sqlstate", "said", "error"), AT_ONCE)
def test_what_does_not_pass_is_told_at_once(
    driver: str, sqlstate: str, said: str, error: type[Exception]
) -> None:
    """A demand for TLS is no wrong password, and a password that was refused in any language is one."""
    with ScriptedPostgres(sqlstate, said) as server:
        settings = settings_for(server, startup_timeout_seconds=30)
        with pytest.raises(error), client_of(driver, settings):
            pass


def test_a_proxy_that_demands_tls_leads_to_the_setting(driver: str) -> None:
    """The message names it, as it does where pg_hba.conf demands the same."""
    with ScriptedPostgres("28000", "This RDS Proxy requires TLS connections") as server:
        settings = settings_for(server, database_sslmode="disable")
        with (
            pytest.raises(ConfigurationError, match="LEDGER_DB_DATABASE_SSLMODE"),
            client_of(driver, settings),
        ):
            pass


@pytest.mark.parametrize(
    ("sqlstate", "said", "reason"),
    [
        ("28P01", "la autentificación password falló para el usuario «app»", Reason.REFUSED),
        (
            "28000",
            "This RDS proxy has no credentials for the role app. Check the credentials.",
            Reason.REFUSED,
        ),
        ("08P01", "no such user: app", Reason.REFUSED),
        ("28000", "This RDS Proxy requires TLS connections", Reason.FORBIDDEN),
        (
            "08P01",
            "server login has been failing, cached error: auth failed (server_login_retry)",
            Reason.NOT_READY,
        ),
    ],
)
def test_a_rotation_hears_the_same(sqlstate: str, said: str, reason: Reason) -> None:
    """Only after an answer about these very credentials may it write anything."""
    with ScriptedPostgres(sqlstate, said) as server:
        fields = {"host": "127.0.0.1", "port": server.port, "username": "app", "password": "p"}
        seen = probe(Secret("s", "v", fields), TLS(mode="disable"), Deadline.after(10))

    assert seen.reason is reason
