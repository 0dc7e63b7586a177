"""
Is every error of a failed login understood, and in the same way by a service and by a rotation?

The service asks what to do (`judge`); the rotation asks why (`find`), and exits with a status of its own.
"""

import errno
import re
import shutil
import socket
import ssl
import subprocess

import psycopg2
import pytest
import redis.exceptions

from docs import translations
from ledger_db.answers import login_errors, postgres, redis as redis_answers
from ledger_db.answers.login_errors import find, judge, sqlstate_of
from ledger_db.answers.postgres_translations import TRANSLATIONS
from ledger_db.answers.reason import Reason, Text, Verdict
from ledger_db.rotation import failures, postgres_refusals
from ledger_db.rotation.protocol import Probe, ServerProblem


class _CodedError(Exception):
    def __init__(self, sqlstate: str | None, said: str = "Meldung in einer anderen Sprache") -> None:
        super().__init__(said)
        self.sqlstate = sqlstate


# Real texts.  psycopg2 gives nothing else for a failed connect.
POSTGRES = [
    ('no pg_hba.conf entry for host "10.0.0.1", user "app", database "d", no encryption', Reason.FORBIDDEN),
    ('pg_hba.conf rejects connection for host "10.0.0.1", user "app"', Reason.FORBIDDEN),
    ("server does not support SSL, but SSL was required", Reason.NO_TLS),
    ("rejected SSL upgrade", Reason.NO_TLS),
    ('Peer authentication failed for user "app"', Reason.FORBIDDEN),
    ('Ident authentication failed for user "app"', Reason.FORBIDDEN),
    (
        (
            'authentication method requirement "password,md5,scram-sha-256" failed: '
            "server did not complete authentication"
        ),
        Reason.NO_PASSWORD,
    ),
    ('certificate authentication failed for user "app"', Reason.FORBIDDEN),
    (
        'authentication method requirement "password" failed: server requested GSSAPI authentication',
        Reason.FORBIDDEN,
    ),
    (
        'authentication method requirement "password" failed: server did not complete authentication',
        Reason.NO_PASSWORD,
    ),
    ('password authentication failed for user "app"', Reason.REFUSED),
    ("SASL authentication failed", Reason.REFUSED),
    ('PAM authentication failed for user "app"', Reason.REFUSED),
    ('LDAP authentication failed for user "app"', Reason.REFUSED),
    ('RADIUS authentication failed for user "app"', Reason.REFUSED),
    ('role "app" is not permitted to log in', Reason.NO_LOGIN),
    ('role "app" does not exist', Reason.REFUSED),
    ("fe_sendauth: no password supplied", Reason.REFUSED),
    ('database "nope" does not exist', Reason.NO_DATABASE),
    ('permission denied for database "d"', Reason.FORBIDDEN),
    ("the database system is starting up", Reason.NOT_READY),
    ("the database system is shutting down", Reason.NOT_READY),
    ("the database system is in recovery mode", Reason.NOT_READY),
    ("the database system is not yet accepting connections", Reason.NOT_READY),
    ("sorry, too many clients already", Reason.TOO_MANY_CONNECTIONS),
    ('too many connections for role "app"', Reason.TOO_MANY_CONNECTIONS),
    ("remaining connection slots are reserved for roles", Reason.TOO_MANY_CONNECTIONS),
    ('invalid sslmode value: "maybe"', Reason.UNSUPPORTED),
    ('invalid target_session_attrs value: "primary"', Reason.UNSUPPORTED),
    ('invalid connection option "x"', Reason.UNSUPPORTED),
    ("server is in hot standby mode", Reason.NOT_PRIMARY),
    ("session is read-only", Reason.NOT_PRIMARY),
    (
        "None of the hosts match the target attribute requirement <SessionAttribute.primary: 'primary'>",
        Reason.NOT_PRIMARY,
    ),
    ("authentication method 13 not supported", Reason.UNSUPPORTED),
    ("terminating connection due to administrator command", Reason.NOT_READY),
    ("terminating connection because of crash of another server process", Reason.NOT_READY),
    ("canceling authentication due to timeout", Reason.NOT_READY),
    ('database "d" is not currently accepting connections', Reason.FORBIDDEN),
    ("something that nobody has seen", Reason.UNKNOWN),
]
# PgBouncer's, nearly all of them 08P01; RDS Proxy's as its user guide has them, and those who have met them;
# a few of Pgpool-II's, Supavisor's and Neon's.
POOLERS = [
    ("no such user", Reason.REFUSED),
    ("no such user: app", Reason.REFUSED),
    ("auth failed", Reason.REFUSED),
    ("password authentication failed", Reason.REFUSED),
    ("SASL authentication failed", Reason.REFUSED),
    ("certificate authentication failed", Reason.FORBIDDEN),
    ("pgbouncer cannot connect to server", Reason.NOT_READY),
    ("server login has been failing, try again later (server_login_retry)", Reason.NOT_READY),
    ("server login has been failing, cached error: connect failed (server_login_retry)", Reason.NOT_READY),
    (
        "server login has been failing, cached error: password authentication failed (server_login_retry)",
        Reason.NOT_READY,
    ),
    ("query_wait_timeout", Reason.NOT_READY),
    ("client_login_timeout", Reason.NOT_READY),
    ("client_login_timeout (server down)", Reason.NOT_READY),
    ("pause failed", Reason.NOT_READY),
    ("pgbouncer is shutting down", Reason.NOT_READY),
    ("pooler is shutting down", Reason.NOT_READY),
    ("server shutting down", Reason.NOT_READY),
    ("server conn crashed?", Reason.NOT_READY),
    ("admin forced disconnect", Reason.NOT_READY),
    ("query_timeout", Reason.NOT_READY),
    ("idle transaction timeout", Reason.NOT_READY),
    ("no more connections allowed (max_client_conn)", Reason.TOO_MANY_CONNECTIONS),
    ("client connections exceeded (max_db_client_connections)", Reason.TOO_MANY_CONNECTIONS),
    ("client connections exceeded (max_user_client_connections)", Reason.TOO_MANY_CONNECTIONS),
    ("bouncer resources exhaustion", Reason.TOO_MANY_CONNECTIONS),
    ("SSL required", Reason.FORBIDDEN),
    ("TLS connection required", Reason.FORBIDDEN),
    ("TLS client certificate required", Reason.FORBIDDEN),
    ("unsupported startup parameter: options", Reason.UNSUPPORTED),
    ("unsupported startup parameter in options: search_path", Reason.UNSUPPORTED),
    ("unsupported options startup parameter: only '-c config=val' is allowed", Reason.UNSUPPORTED),
    ("no authentication method is found", Reason.UNSUPPORTED),
    ("server login failed: wrong password type", Reason.UNSUPPORTED),
    ("no such database: d", Reason.NO_DATABASE),
    ('database "d" is disabled', Reason.FORBIDDEN),
    ("database does not allow connections: d", Reason.FORBIDDEN),
    ("login rejected", Reason.FORBIDDEN),
    ("bouncer config error", Reason.FORBIDDEN),
    ("IAM authentication failed for user app. Check the IAM token for this user.", Reason.REFUSED),
    ("The IAM authentication failed for the role app. Check the IAM token.", Reason.REFUSED),
    ("The IAM authentication failed because of too many competing requests.", Reason.TOO_MANY_CONNECTIONS),
    ("This RDS proxy has no credentials for the role app. Check the credentials.", Reason.REFUSED),
    ("The password that was provided for the role app is wrong.", Reason.REFUSED),
    ("Timed-out waiting to acquire database connection", Reason.TOO_MANY_CONNECTIONS),
    (
        "The maximum number of client connections to the proxy exceeded max_connections.",
        Reason.TOO_MANY_CONNECTIONS,
    ),
    ("This RDS Proxy requires TLS connections", Reason.FORBIDDEN),
    ("IAM authentication is allowed only with SSL connections.", Reason.FORBIDDEN),
    ("IAM is allowed only with SSL connections.", Reason.FORBIDDEN),
    ("RDS Proxy supports only IAM, MD5, or SCRAM authentication.", Reason.UNSUPPORTED),
    ("RDS supports only IAM or MD5 authentication.", Reason.UNSUPPORTED),
    (
        "Feature not supported: RDS Proxy supports only version 3.0 of the PostgreSQL messaging protocol.",
        Reason.UNSUPPORTED,
    ),
    (
        "Feature not supported: RDS Proxy currently doesn\u2019t support command-line options.",
        Reason.UNSUPPORTED,
    ),
    ("all backend nodes are down, pgpool requires at least one valid node", Reason.NOT_READY),
    ("pgpool is not accepting any more new connections", Reason.TOO_MANY_CONNECTIONS),
    ("Max client connections reached", Reason.TOO_MANY_CONNECTIONS),
    ("MaxClientsInSessionMode: max clients reached", Reason.TOO_MANY_CONNECTIONS),
    ("Tenant or user not found", Reason.REFUSED),
    ("connection is insecure (try using `sslmode=require`)", Reason.FORBIDDEN),
    ("SSL connection is required", Reason.FORBIDDEN),
    ("unexpected response from login query", Reason.FORBIDDEN),
    ("The user name is missing from the connection startup packet.", Reason.UNSUPPORTED),
]
REDIS = [
    ("WRONGPASS invalid username-password pair or user is disabled.", Reason.REFUSED),
    ("invalid password", Reason.REFUSED),
    ("AUTH <password> called without any password configured for the default user.", Reason.REFUSED),
    ("ERR Client sent AUTH, but no password is set", Reason.REFUSED),
    ("NOAUTH HELLO must be called with the client already authenticated", Reason.REFUSED),
    ("Authentication required.", Reason.REFUSED),
    ("NOPERM User app has no permissions to run the 'ping' command", Reason.FORBIDDEN),
    ("DENIED Redis is running in protected mode", Reason.FORBIDDEN),
    ("READONLY You can't write against a read only replica.", Reason.FORBIDDEN),
    ("invalid DB index", Reason.NO_DATABASE),
    ("ERR DB index is out of range", Reason.NO_DATABASE),
    ("max number of clients reached", Reason.TOO_MANY_CONNECTIONS),
    ("LOADING Redis is loading the dataset in memory", Reason.NOT_READY),
    ("BUSY Redis is busy running a script", Reason.NOT_READY),
    ("MASTERDOWN Link with MASTER is down", Reason.NOT_READY),
    ("CLUSTERDOWN The cluster is down", Reason.NOT_READY),
    ("TRYAGAIN Multiple keys request during rehashing of slot", Reason.NOT_READY),
    ("Connection closed by server.", Reason.NOT_READY),
    ("Error while reading from h:1 : (104, 'Connection reset by peer')", Reason.NOT_READY),
    ("something that nobody has seen", Reason.UNKNOWN),
]
ON_THE_WAY = [
    ('server certificate for "db" does not match host name "other"', Reason.WRONG_CERTIFICATE),
    ("certificate verify failed: Hostname mismatch, certificate is not valid", Reason.WRONG_CERTIFICATE),
    ("SSL error: certificate verify failed", Reason.WRONG_CERTIFICATE),
    ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", Reason.WRONG_CERTIFICATE),
    ("self-signed certificate in certificate chain", Reason.WRONG_CERTIFICATE),
    ("certificate has expired", Reason.WRONG_CERTIFICATE),
    ('root certificate file "/nowhere.pem" does not exist', Reason.WRONG_CERTIFICATE),
    ('could not read root certificate file "x"', Reason.WRONG_CERTIFICATE),
    ("[X509: NO_CERTIFICATE_OR_CRL_FOUND] no certificate or crl found", Reason.WRONG_CERTIFICATE),
    ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required", Reason.UNSUPPORTED),
    ("connection requires a valid client certificate", Reason.UNSUPPORTED),
    ("[SSL: WRONG_VERSION_NUMBER] wrong version number", Reason.NO_TLS),
    ('could not translate host name "h" to address: Name or service not known', Reason.NO_ADDRESS),
    ("failed to resolve host 'h': [Errno -3] Temporary failure in name resolution", Reason.NO_ADDRESS),
    ("connection to server at ... failed: Connection refused", Reason.CLOSED_PORT),
    ("Error 111 connecting to h:1. Connection refused.", Reason.CLOSED_PORT),
    ("timeout expired", Reason.NO_ANSWER),
    ("Connection timed out", Reason.NO_ANSWER),
    ("Timeout connecting to server", Reason.NO_ANSWER),
    ("Timeout reading from socket", Reason.NO_ANSWER),
    ("No route to host", Reason.NO_ANSWER),
    ("Network is unreachable", Reason.NO_ANSWER),
    ("Host is down", Reason.NO_ANSWER),
    ("server closed the connection unexpectedly", Reason.NOT_READY),
    ("SSL SYSCALL error: EOF detected", Reason.NOT_READY),
    ("could not receive data from server: Connection reset by peer", Reason.NOT_READY),
    ("Broken pipe", Reason.NOT_READY),
    ("consuming input failed: server closed", Reason.NOT_READY),
    ("the connection is lost", Reason.NOT_READY),
]
VERDICTS = {
    Reason.REFUSED: Verdict.REFUSED,
    Reason.NO_LOGIN: Verdict.REFUSED,
    Reason.EXPIRED: Verdict.REFUSED,
    Reason.NO_ADDRESS: Verdict.TRANSIENT,
    Reason.CLOSED_PORT: Verdict.TRANSIENT,
    Reason.NO_ANSWER: Verdict.TRANSIENT,
    Reason.NOT_READY: Verdict.TRANSIENT,
    Reason.NOT_PRIMARY: Verdict.TRANSIENT,
    Reason.TOO_MANY_CONNECTIONS: Verdict.TRANSIENT,
    Reason.NO_DATABASE: Verdict.PERMANENT,
    Reason.WRONG_CERTIFICATE: Verdict.PERMANENT,
    Reason.NO_TLS: Verdict.PERMANENT,
    Reason.FORBIDDEN: Verdict.PERMANENT,
    Reason.NO_PASSWORD: Verdict.PERMANENT,
    Reason.UNSUPPORTED: Verdict.PERMANENT,
    Reason.FAILED_CHECK: Verdict.PERMANENT,
    Reason.UNKNOWN: Verdict.PERMANENT,
}


@pytest.mark.parametrize(("said", "reason"), POSTGRES + POOLERS + ON_THE_WAY)
def test_what_libpq_says_of_a_login(said: str, reason: Reason) -> None:
    """Where there is no code the text decides."""
    assert find(psycopg2.OperationalError(f"FATAL:  {said}")).reason is reason


@pytest.mark.parametrize("code", [None, "08P01", "08000", "28000", "0A000", "XX000"])
@pytest.mark.parametrize(("said", "reason"), POOLERS)
def test_what_a_pooler_says_is_judged_by_its_text(said: str, reason: Reason, code: str | None) -> None:
    """A pooler has a code of its own for nearly nothing: the verdict is the same on every driver."""
    assert find(_CodedError(code, said)).reason is reason


@pytest.mark.parametrize("code", [None, "28000", "57P03"])
@pytest.mark.parametrize(
    ("sentence", "translation"),
    [(sentence, each) for sentence, translations in TRANSLATIONS.items() for each in translations],
)
def test_a_translation_means_what_the_sentence_means(
    sentence: str, translation: str, code: str | None
) -> None:
    """A server that speaks another language gets the verdict of an English one, on every driver."""
    asked, told = (re.sub(r"%(\d\$)?s", "app", each) for each in (sentence, translation))

    assert find(_CodedError(code, told)) == find(psycopg2.OperationalError(f"FATAL:  {asked}"))


@pytest.mark.parametrize(
    "said",
    [
        "authentification par mot de passe échouée pour l'utilisateur « app »",
        "authentification par mot de passe échouée pour l'utilisateur\u00a0«\u202fapp\u202f»",
    ],
)
def test_spaces_of_a_translation_do_not_count(said: str) -> None:
    """Translators move them, from one release of PostgreSQL to the next."""
    assert judge(psycopg2.OperationalError(said)) is Verdict.REFUSED


def test_translations_are_those_of_the_catalogues() -> None:
    """What was written from PostgreSQL's catalogues is what they say."""
    # Another release words some of them anew.
    package = translations.SOURCE.split()[:2]
    dpkg = shutil.which("dpkg-query")
    shown = [dpkg, "--show", "--showformat=${Version}", package[0]] if dpkg else ["false"]
    if subprocess.run(shown, check=False, capture_output=True, text=True).stdout != package[1]:
        pytest.skip(f"needs the catalogues of {translations.SOURCE}")

    assert translations.module_of(translations.installed()) == translations.TARGET.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "second", ["This RDS Proxy requires TLS connections", 'no pg_hba.conf entry for host "h", no encryption']
)
def test_a_password_that_was_refused_in_tls_counts(second: str) -> None:
    """After a refusal libpq's "prefer" asks once more without TLS, and that answer means nothing."""
    said = f"FATAL:  The password that was provided for the role app is wrong.\nFATAL:  {second}"

    assert judge(psycopg2.OperationalError(said)) is Verdict.REFUSED


@pytest.mark.parametrize(("said", "reason"), REDIS + ON_THE_WAY)
def test_what_redis_says_of_a_login(said: str, reason: Reason) -> None:
    """Redis has no codes at all."""
    assert find(redis.exceptions.ConnectionError(said)).reason is reason


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_asks_for_one_thing(reason: Reason) -> None:
    """Who knows why a login failed knows whether to look for other credentials, to wait, or to give up."""
    assert reason.verdict is VERDICTS[reason]


@pytest.mark.parametrize("reason", Reason)
def test_a_rotation_has_a_failure_for_every_reason(reason: Reason) -> None:
    """Whatever a login fails for has an errorType, an exit status and a next move."""
    with (
        pytest.raises(failures.StepFailed) as failed,
        failures.explained("setSecret of s", lambda: "nothing was changed"),
    ):
        raise ServerProblem(Probe(reason, "it did not log in"))

    assert str(failed.value).endswith(failed.value.next_move)
    assert failed.value.exit_status >= 20


def first_row(error: Exception) -> Text | None:
    """Return the row that decides about *error*."""
    return next((row for row in login_errors._rows_for(error) if row.pattern.search(str(error))), None)


def test_every_row_of_the_tables_decides_about_a_text() -> None:
    """A row without a real text behind it would be a guess, one that another row hides would be dead."""
    errors = [psycopg2.OperationalError(f"FATAL:  {said}") for said, _ in POSTGRES + POOLERS + ON_THE_WAY]
    answers = [redis.exceptions.ConnectionError(said) for said, _ in REDIS + ON_THE_WAY]
    deciding = {row.pattern for error in errors + answers if (row := first_row(error)) is not None}

    rows = postgres.TEXTS + redis_answers.TEXTS + login_errors._ON_THE_WAY
    assert [row.pattern.pattern for row in rows if row.pattern not in deciding] == []


@pytest.mark.parametrize("code", sorted(postgres.SQLSTATES))
def test_sqlstates(code: str) -> None:
    """Where there is a code it decides, whatever the language of the text; a class stands for its codes."""
    whole = code if len(code) == 5 else f"{code}999"
    assert find(_CodedError(whole)) == postgres.SQLSTATES[code]


def test_a_text_goes_before_its_code() -> None:
    """28000 is also "no pg_hba.conf entry", which no newer password mends."""
    error = _CodedError("28000")
    error.args = ("no pg_hba.conf entry for host",)

    assert judge(error) is Verdict.PERMANENT


def test_what_the_server_said_goes_before_what_happened_on_the_way() -> None:
    """Of a name with two addresses the one that answered counts, not the one where nobody listens."""
    error = psycopg2.OperationalError(
        'connection to server at "localhost" (::1), port 5432 failed: Connection refused\n'
        'connection to server at "localhost" (127.0.0.1), port 5432 failed: FATAL:  password authentication '
        'failed for user "app"'
    )

    assert judge(error) is Verdict.REFUSED


def test_names_of_databases_are_not_words_of_redis() -> None:
    """A server is judged by its own table: what PostgreSQL quotes does not mean what Redis would mean."""
    error = psycopg2.OperationalError('FATAL:  database "BUSY BEES LOADING" does not exist')

    assert find(error).reason is Reason.NO_DATABASE


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), Reason.NO_ANSWER),
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), Reason.CLOSED_PORT),
        (ConnectionResetError(), Reason.NOT_READY),
        (ConnectionAbortedError(), Reason.NOT_READY),
        (BrokenPipeError(), Reason.NOT_READY),
        (socket.gaierror(-3, "x"), Reason.NO_ADDRESS),
        (OSError(errno.EHOSTUNREACH, "x"), Reason.NO_ANSWER),
        (OSError(errno.EACCES, "x"), Reason.UNKNOWN),
        (FileNotFoundError(errno.ENOENT, "x"), Reason.UNKNOWN),
        (EOFError(), Reason.NOT_READY),
        (ssl.SSLCertVerificationError("x"), Reason.WRONG_CERTIFICATE),
        (ssl.SSLError("x"), Reason.NO_TLS),
        (redis.exceptions.BusyLoadingError("x"), Reason.NOT_READY),
        (redis.exceptions.AuthenticationError("invalid username-password pair"), Reason.REFUSED),
        (ValueError("never seen"), Reason.UNKNOWN),
    ],
)
def test_errors_without_code_or_text(error: Exception, reason: Reason) -> None:
    """Plain Python errors are judged by their class; what is unknown is permanent."""
    assert find(error).reason is reason


def test_causes_are_looked_at() -> None:
    """What SQLAlchemy wraps, and what a library re-raises, is judged by what is inside."""
    outer = RuntimeError("wrapped")
    outer.__cause__ = _CodedError("28P01")

    assert judge(outer) is Verdict.REFUSED
    assert sqlstate_of(outer) == "28P01"


def test_a_context_that_was_set_aside_is_not_looked_at() -> None:
    """An error raised "from None" stands for itself."""
    outer = RuntimeError("on its own")
    outer.__context__ = _CodedError("28P01")
    outer.__suppress_context__ = True

    assert judge(outer) is Verdict.PERMANENT
    assert sqlstate_of(outer) is None


def test_what_was_being_handled_already_says_nothing_about_a_login() -> None:
    """A rotation writes after a refusal only, and never because an earlier login was refused."""
    earlier = _CodedError("28P01")
    error = psycopg2.OperationalError("something that nobody has seen")
    error.__context__ = earlier

    assert find(error, but=earlier).reason is Reason.UNKNOWN
    assert find(error).reason is Reason.REFUSED


class _Told(psycopg2.Error):  # type: ignore[misc] # psycopg2 has no types
    """An error of a statement; the driver's own cannot be given a code."""

    def __init__(self, code: str | None) -> None:
        super().__init__("Meldung in einer anderen Sprache")
        self._code = code

    @property
    def pgcode(self) -> str | None:
        return self._code


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (None, Reason.NOT_READY),
        ("08006", Reason.NOT_READY),
        ("08P01", Reason.NOT_READY),
        ("08004", Reason.NOT_READY),
        ("57014", Reason.NOT_READY),
        ("57P01", Reason.NOT_READY),
        ("55P03", Reason.NOT_READY),
        ("53300", Reason.TOO_MANY_CONNECTIONS),
        ("42501", Reason.FORBIDDEN),
        ("25006", Reason.FORBIDDEN),
        ("42704", Reason.FAILED_CHECK),
        ("0A000", Reason.UNSUPPORTED),
        ("28P01", Reason.UNKNOWN),
        ("28000", Reason.UNKNOWN),
        ("42601", Reason.UNKNOWN),
    ],
)
def test_a_statement_of_a_rotation_never_counts_as_a_refused_login(code: str | None, reason: Reason) -> None:
    """A pooler may refuse in the middle of a change: that is no permission to write."""
    assert postgres_refusals.judged(_Told(code), where="here").reason is reason
