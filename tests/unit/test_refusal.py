"""Is every error of a connection attempt understood?  One test a row of the table."""

import errno
import socket
import ssl

import pytest
import redis.exceptions

from ledger_db.answers.postgres import MESSAGES, SQLSTATES, Verdict, judge, sqlstate_of

R, T, P = Verdict.REFUSED, Verdict.TRANSIENT, Verdict.PERMANENT

# A real text for each pattern, in the order of the table.  psycopg2 gives nothing else for a failed connect.
TEXTS = [
    ('FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "app", database "ledger", no encryption', P),
    ("SSL error: certificate verify failed", P),
    ('root certificate file "/nowhere.pem" does not exist', P),
    ('server certificate for "db" does not match host name "other"', P),
    ("server does not support SSL, but SSL was required", P),
    ('invalid sslmode value: "maybe"', P),
    ('FATAL:  password authentication failed for user "app"', R),
    ("This RDS proxy has no credentials for the role app. Check the credentials for this role.", R),
    ('FATAL:  role "app" is not permitted to log in', R),
    ('FATAL:  role "app" does not exist', R),
    ("fe_sendauth: no password supplied", R),
    ('FATAL:  database "nope" does not exist', P),
    ("FATAL:  the database system is starting up", T),
    ("FATAL:  the database system is not yet accepting connections", T),
    ("FATAL:  sorry, too many clients already", T),
    ("connection to server at ... failed: Connection refused", T),
    ("timeout expired", T),
    ("server closed the connection unexpectedly", T),
    ('could not translate host name "db.invalid" to address: Name or service not known', T),
    ("consuming input failed: server closed", T),
    ("WRONGPASS invalid username-password pair or user is disabled.", R),
    ("NOAUTH HELLO must be called with the client already authenticated", R),
    ("Authentication required.", R),
    ("LOADING Redis is loading the dataset in memory", T),
    ("Connection closed by server.", T),
    ("NOPERM User app has no permissions to run the 'ping' command", P),
]


@pytest.mark.parametrize(("text", "verdict"), TEXTS)
def test_texts_of_libpq_and_redis(text: str, verdict: Verdict) -> None:
    """Where there is no code the text decides."""
    assert judge(Exception(text)) is verdict


def test_every_row_of_the_table_has_a_text() -> None:
    """A row without a real text behind it would be a guess."""
    assert len(TEXTS) == len(MESSAGES)


class _CodedError(Exception):
    def __init__(self, sqlstate: str) -> None:
        super().__init__("Meldung in einer anderen Sprache")
        self.sqlstate = sqlstate


@pytest.mark.parametrize(("code", "verdict"), sorted(SQLSTATES.items()))
def test_sqlstates(code: str, verdict: Verdict) -> None:
    """Where there is a code it decides, whatever the language of the text; a class stands for its codes."""
    whole = code if len(code) == 5 else f"{code}300"
    assert judge(_CodedError(whole)) is verdict


def test_a_text_goes_before_its_code() -> None:
    """28000 is also "no pg_hba.conf entry", which no newer password mends."""
    error = _CodedError("28000")
    error.args = ("no pg_hba.conf entry for host",)

    assert judge(error) is P


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (TimeoutError(), T),
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), T),
        (ConnectionResetError(), T),
        (socket.gaierror(-3, "x"), T),
        (OSError(errno.EHOSTUNREACH, "x"), T),
        (OSError(errno.EACCES, "x"), P),
        (EOFError(), T),
        (ssl.SSLCertVerificationError("x"), P),
        (redis.exceptions.ConnectionError("Error 111 connecting to h:1. Connection refused."), T),
        (redis.exceptions.TimeoutError("Timeout connecting to server"), T),
        (redis.exceptions.AuthenticationError("invalid username-password pair or user is disabled."), R),
        (redis.exceptions.BusyLoadingError("x"), T),
        (ValueError("never seen"), P),
    ],
)
def test_errors_without_code_or_text(error: Exception, verdict: Verdict) -> None:
    """Plain Python errors are judged by their class; what is unknown is permanent."""
    assert judge(error) is verdict


def test_causes_are_looked_at() -> None:
    """What SQLAlchemy wraps, and what a library re-raises, is judged by what is inside."""
    outer = RuntimeError("wrapped")
    outer.__cause__ = _CodedError("28P01")

    assert judge(outer) is R
    assert sqlstate_of(outer) == "28P01"


def test_a_context_that_was_set_aside_is_not_looked_at() -> None:
    """An error raised "from None" stands for itself."""
    outer = RuntimeError("on its own")
    outer.__context__ = _CodedError("28P01")
    outer.__suppress_context__ = True

    assert judge(outer) is P
    assert sqlstate_of(outer) is None
