"""What does the Lambda function accept, refuse, write down and import?"""

import io
import json
import logging
import subprocess
import sys
from contextlib import redirect_stdout
from typing import Any

import pytest

from ledger_db.answers.secret import Secret, SecretProblem
from ledger_db.answers.tls import TLS
from ledger_db.errors import ConfigurationError
from ledger_db.event_log import EventLog
from ledger_db.rotation import handler, journal
from ledger_db.rotation.failures import EventInvalid
from ledger_db.rotation.labels import Labels
from ledger_db.rotation.passwords import PasswordRules
from ledger_db.rotation.protocol import Deadline, OutOfTime, Tools
from ledger_db.rotation.request import LeakReport, Request, is_allowed
from ledger_db.rotation.strategies import STRATEGIES, strategy_of
from tests.support.lambda_calls import Context

TOKEN = "0f5c2a6e-5f0e-4c55-9d2c-3a2f8c1b7d10"
ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:app/db-AbCdEf"
EVENT = {"Step": "createSecret", "SecretId": ARN, "ClientRequestToken": TOKEN}


@pytest.mark.parametrize("secret_id", [ARN, "app/db", "app/db@host=x+y"])
def test_a_secret_may_be_named_by_arn_or_name(secret_id: str) -> None:
    """AWS sends an ARN, imitations of AWS a name."""
    assert Request.from_event({**EVENT, "SecretId": secret_id}).secret_id == secret_id


def test_the_token_of_a_role_is_passed_on_and_not_shown() -> None:
    """RotationToken is sensitive."""
    request = Request.from_event({**EVENT, "RotationToken": "very-sensitive"})

    assert request.rotation_token == "very-sensitive"
    assert "very-sensitive" not in repr(request)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Step", "dropSecret"),
        ("Step", None),
        ("SecretId", "app/db\n{}"),
        ("SecretId", ""),
        ("SecretId", 7),
        ("SecretId", "a" * 2049),
        ("ClientRequestToken", "short"),
        ("ClientRequestToken", TOKEN + "\r\nx"),
        ("ClientRequestToken", "a" * 65),
        ("RotationToken", ""),
        ("RotationToken", ["x"]),
    ],
)
def test_a_malformed_event_is_refused_by_field(field: str, value: object) -> None:
    """The message names the field and never what was in it: a line feed would forge a line of the log."""
    with pytest.raises(EventInvalid, match=f"the event's {field} is missing or malformed") as refused:
        Request.from_event({**EVENT, field: value})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        (("app/db",), True),
        ((ARN,), True),
        (("app/*",), True),
        (("arn:aws:secretsmanager:eu-central-1:123456789012:secret:app/*",), True),
        # As AWS takes an ARN too: without the hyphen and six characters that it adds to the name.
        (("arn:aws:secretsmanager:eu-central-1:123456789012:secret:app/db",), True),
        (("arn:aws:secretsmanager:eu-central-1:123456789012:secret:app/d",), False),
        (("arn:aws:secretsmanager:eu-west-1:123456789012:secret:app/db",), False),
        (("other/*", "app/d"), False),
        (("APP/DB",), False),
        ((), False),
    ],
)
def test_only_listed_secrets_are_rotated(allowed: tuple[str, ...], *, expected: bool) -> None:
    """By name, ARN or pattern, as Secrets Manager spells them."""
    labels = Labels(arn=ARN, name="app/db", rotation_enabled=True, holders={})

    assert is_allowed(labels, allowed) is expected


def test_a_function_without_a_list_rotates_nothing() -> None:
    """Otherwise whoever may call it chooses what it works on."""
    with pytest.raises(ConfigurationError, match="LEDGER_DB_ROTATION_SECRETS is not set"):
        handler.rules_from({})


def test_the_environment_configures_the_function() -> None:
    """Its variables and AWS's for passwords; a cancelled rotation is refused."""
    rules = handler.rules_from(
        {
            "LEDGER_DB_ROTATION_SECRETS": "a, b/*,",
            "LEDGER_DB_ROTATION_STRATEGY": "postgres-single",
            "LEDGER_DB_ROTATION_SSLMODE": "verify-ca",
            "LEDGER_DB_ROTATION_SSLROOTCERT": "/opt/ca.pem",
            "PASSWORD_LENGTH": "40",
            "EXCLUDE_CHARACTERS": "lI",
        }
    )

    assert rules.allowed == ("a", "b/*")
    assert rules.strategy == "postgres-single"
    assert rules.tls == TLS(mode="verify-ca", ca_file="/opt/ca.pem")
    assert rules.passwords == PasswordRules(length=40, excluded=frozenset("lI"))
    assert rules.only_if_enabled


@pytest.mark.parametrize("name", ["STRATEGY", "SSLMODE"])
def test_a_wrong_choice_is_named(name: str) -> None:
    """There is no fallback to a default, least of all to no TLS."""
    with pytest.raises(ConfigurationError, match=f"LEDGER_DB_ROTATION_{name} is none of"):
        handler.rules_from({"LEDGER_DB_ROTATION_SECRETS": "a", f"LEDGER_DB_ROTATION_{name}": "prefer"})


@pytest.mark.parametrize(
    ("host", "mode"), [("db.example", "verify-full"), ("127.0.0.1", "prefer"), ("localhost", "prefer")]
)
def test_tls_is_verified_everywhere_but_at_home(host: str, mode: str) -> None:
    """Nobody listens in between on the loopback address."""
    assert TLS().mode_for(host) == mode


@pytest.mark.parametrize(
    ("fields", "configured", "expected"),
    [
        ({"engine": "postgres", "users": ["a", "b"]}, None, "postgres-alternating"),
        ({"engine": "postgres"}, None, "postgres-single"),
        ({"engine": "aurora-postgresql"}, "postgres-single", "postgres-single"),
        ({"engine": "postgres", "strategy": "postgres-alternating-clone"}, "postgres-single",
         "postgres-alternating-clone"),
        ({"engine": "Redis"}, None, "redis-acl"),
        ({"engine": "valkey", "user_arn": "arn"}, None, "elasticache-user"),
        ({"engine": "redis", "strategy": "elasticache-auth-token"}, None, "elasticache-auth-token"),
    ],
)  # fmt: skip
def test_the_secret_chooses_the_strategy(
    fields: dict[str, str], configured: str | None, expected: str
) -> None:
    """Its own word first, then the configuration, then its shape."""
    assert strategy_of(Secret("s", "v", fields), configured=configured) == expected


@pytest.mark.parametrize("fields", [{}, {"engine": "mysql"}, {"engine": "postgres", "strategy": "magic"}])
def test_a_secret_for_nothing_known_is_refused(fields: dict[str, str]) -> None:
    """The message names the field."""
    with pytest.raises(SecretProblem, match=r"secret 's': field '(engine|strategy)' "):
        strategy_of(Secret("s", "v", fields))


def no_secret(name: str) -> Secret:
    """Know no other secret."""
    raise SecretProblem(name)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_knows_its_own_name(strategy: str) -> None:
    """What a secret asks for is what logs and announcements say."""
    assert STRATEGIES[strategy](Tools(read_secret=no_secret, client=lambda _: None)).strategy == strategy


def test_a_deadline_gives_no_more_than_is_left() -> None:
    """Every wait is bounded by what the function has left."""
    deadline = Deadline.after(10.0)

    assert deadline.wait_seconds(1.0, what="x") == 1.0
    assert 9.0 < deadline.wait_seconds(60.0, what="x") <= 10.0
    with pytest.raises(OutOfTime, match="no time was left for a walk"):
        deadline.wait_seconds(60.0, what="a walk", at_least=11.0)


def log_line(**fields: object) -> dict[str, Any]:
    """Log something, and return the line."""
    stream = io.StringIO()
    stream_handler = logging.StreamHandler(stream)
    stream_handler.setFormatter(journal.JSONLines())
    logger = logging.getLogger("ledger_db.rotation.test")
    logger.addHandler(stream_handler)
    try:
        int("hunter2")
    except ValueError as error:
        EventLog(logger.name).error("event.happened", exc_info=error, cause="hunter2", **fields)
    finally:
        logger.removeHandler(stream_handler)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1
    parsed: dict[str, Any] = json.loads(lines[0])
    return parsed


def test_a_log_line_has_listed_fields_only() -> None:
    """What is not on the list is not written, nor is the text of an error."""
    line = log_line(step="createSecret", password="hunter2", secret="a\nb")

    assert line["event"] == "event.happened"
    assert line["step"] == "createSecret"
    assert line["secret"] == "a\nb"
    assert line["error"] == "ValueError"
    assert "hunter2" not in json.dumps(line)


def test_metrics_are_what_cloudwatch_reads() -> None:
    """The embedded metric format: namespace, dimensions, units, values, in one line."""
    line = json.loads(
        journal.metrics_line({"StepDuration": 12.5, "Outcome": 1}, dimensions={"step": "setSecret"}, at=1.0)
    )

    assert line == {
        "_aws": {
            "Timestamp": 1000,
            "CloudWatchMetrics": [
                {
                    "Namespace": "ledger_db/rotation",
                    "Dimensions": [["step"]],
                    "Metrics": [
                        {"Name": "StepDuration", "Unit": "Milliseconds"},
                        {"Name": "Outcome", "Unit": "Count"},
                    ],
                }
            ],
        },
        "step": "setSecret",
        "StepDuration": 12.5,
        "Outcome": 1,
    }


def test_a_malformed_event_leaves_no_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The function refuses it before anything is written or asked."""
    root = logging.getLogger("ledger_db")
    before = root.handlers[:], root.level, root.propagate
    written = io.StringIO()
    try:
        with redirect_stdout(written), pytest.raises(EventInvalid):
            handler.lambda_handler({**EVENT, "Step": "x\ny"}, Context())
    finally:
        root.handlers[:], root.level, root.propagate = before
    assert written.getvalue() == ""


FORBIDDEN = ("sqlalchemy", "fastapi", "pydantic", "redis", "tenacity", "boto3", "botocore", "click")


def test_the_function_imports_little() -> None:
    """With a strategy for PostgreSQL chosen: psycopg2 and nothing that makes a cold start slow."""
    program = (
        "import sys, ledger_db.rotation.handler as h\n"
        "from ledger_db.rotation.strategies import STRATEGIES\n"
        "from ledger_db.rotation.protocol import Tools\n"
        "STRATEGIES['postgres-alternating'](Tools(read_secret=None, client=None))\n"
        "print(' '.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())

    assert "psycopg2" in modules
    assert not modules & set(FORBIDDEN)
    assert not {name for name in modules if name.startswith("ledger_db.connections")}


def test_a_leak_is_told_with_a_secret_and_a_grace() -> None:
    """Half a minute if nothing is said."""
    assert LeakReport.from_event({"Compromised": ARN}) == LeakReport(ARN, 30.0)
    assert LeakReport.from_event({"Compromised": "app/db", "GraceSeconds": 0}) == LeakReport("app/db", 0.0)


@pytest.mark.parametrize(
    ("event", "named"),
    [
        ({"Compromised": "app/db\n{}"}, "Compromised"),
        ({"Compromised": None}, "Compromised"),
        ({"Compromised": "app/db", "GraceSeconds": "30"}, "GraceSeconds"),
        ({"Compromised": "app/db", "GraceSeconds": True}, "GraceSeconds"),
        ({"Compromised": "app/db", "GraceSeconds": -1}, "GraceSeconds"),
        ({"Compromised": "app/db", "GraceSeconds": 601}, "GraceSeconds"),
        ({"Compromised": "app/db", "GraceSeconds": float("nan")}, "GraceSeconds"),
        ({**EVENT, "Compromised": "app/db"}, "other fields"),
    ],
)
def test_a_malformed_report_of_a_leak_is_refused_by_field(event: dict[str, Any], named: str) -> None:
    """Nothing is rotated for an event that is half of two things."""
    with pytest.raises(EventInvalid, match=f"the event's {named} is missing or malformed; nothing was"):
        LeakReport.from_event(event)
