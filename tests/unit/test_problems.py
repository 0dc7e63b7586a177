"""What does a client hear of an error, and what does it not hear?"""

import json
import logging
import subprocess
import sys
from enum import Enum
from typing import Annotated, Any
from unittest import mock

import httpx
import pytest
import redis.exceptions
import sqlalchemy
from fastapi import Body, FastAPI, HTTPException, WebSocket
from sqlalchemy.exc import (
    IntegrityError,
    InvalidRequestError,
    OperationalError,
    PendingRollbackError,
    StatementError,
    TimeoutError as PoolTimeoutError,
)
from starlette.requests import Request
from starlette.responses import Response

from ledger_db import errors
from ledger_db.answers.secret import Password
from ledger_db.connections.engines import EngineFactory, async_probe
from ledger_db.connections.login import Logins
from ledger_db.credentials.model import Credentials
from ledger_db.credentials.provider import CredentialProvider
from ledger_db.credentials.static import StaticSource
from ledger_db.fastapi.problems import install_error_handlers
from ledger_db.transactions.meaning import note_stored
from tests.support.asgi import Served
from tests.support.events import event_of, fields_of


class Failing:
    """An application that raises what it is told to."""

    def __init__(self, **options: Any) -> None:
        self.error: BaseException = RuntimeError("nothing to raise")
        self.app = FastAPI()
        install_error_handlers(self.app, **options)
        self.app.add_api_route("/fail/{what}", self.fail)
        self.app.add_api_websocket_route("/talk", self.talk)
        self.app.add_api_websocket_route("/refuse", self.refuse)
        self.app.add_api_route("/amounts", self.amounts, methods=["POST"])

    async def fail(self, what: str) -> None:
        """Raise."""
        raise self.error

    async def talk(self, websocket: WebSocket) -> None:
        """Raise in the middle of a conversation."""
        await websocket.accept()
        raise self.error

    async def refuse(self, websocket: WebSocket) -> None:
        """Raise before there is one."""
        raise self.error

    async def amounts(self, amount: Annotated[int, Body()], memos: Annotated[dict[str, int], Body()]) -> None:
        """Take a number, and some with names."""

    async def get(self, error: BaseException, path: str = "/fail/secret-path") -> httpx.Response:
        """Raise *error*, and return what a client hears; it is raised here if nobody answers it."""
        self.error = error
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://t") as client:
            return await client.get(path)

    async def post(self, body: bytes) -> httpx.Response:
        """Send *body*."""
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://t") as client:
            return await client.post("/amounts", content=body, headers={"content-type": "application/json"})


def told(answer: httpx.Response) -> tuple[int, str, str | None]:
    """Return status, kind and Retry-After."""
    assert answer.headers["content-type"] == "application/problem+json"
    kind = answer.json()["type"].removeprefix("urn:ledger-db:problem:")
    return answer.status_code, kind, answer.headers.get("retry-after")


def exhausted(cause: Exception) -> errors.RetriesExhausted:
    """Return what `run` raises in the end."""
    error = errors.RetriesExhausted("three times")
    error.__cause__ = cause
    return error


LOST = OperationalError("SELECT 1", {}, Exception("gone"), connection_invalidated=True)
PARTLY_STORED = OperationalError("SELECT 1", {}, type("Deadlock", (Exception,), {"sqlstate": "40P01"})())
note_stored(PARTLY_STORED)
UNIQUE = IntegrityError("INSERT", {}, type("UniqueViolation", (Exception,), {"sqlstate": "23505"})())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.Saturated("x"), (503, "saturated", "1")),
        (PoolTimeoutError("x"), (503, "saturated", "1")),
        (exhausted(LOST), (503, "connection-lost", "1")),
        (PARTLY_STORED, (500, "partly-done", None)),
        (errors.ServerUnreachable("x"), (503, "unavailable", "5")),
        (errors.CredentialsUnavailable("x"), (503, "unavailable", "5")),
        (errors.OutcomeUnknown("x"), (500, "outcome-unknown", None)),
        (errors.LoginRefused("x"), (503, "login-refused", None)),
        (errors.CredentialsInvalid("x"), (503, "login-refused", None)),
        (errors.ManagerClosed("x"), (503, "closing", "1")),
        (errors.ConfigurationError("x"), (500, "configuration", None)),
        (errors.LedgerDBError("x"), (500, "fault", None)),
        (InvalidRequestError("x"), (500, "fault", None)),
        (redis.exceptions.ConnectionError("Connection refused"), (503, "unavailable", "5")),
        (redis.exceptions.TimeoutError("Timeout reading from 10.0.0.1"), (503, "unavailable", "5")),
        (redis.exceptions.ReadOnlyError("READONLY"), (503, "unavailable", "5")),
        (redis.exceptions.BusyLoadingError("LOADING"), (503, "unavailable", "5")),
        (redis.exceptions.AuthenticationError("WRONGPASS"), (503, "login-refused", None)),
        (redis.exceptions.ResponseError("WRONGTYPE"), (500, "fault", None)),
    ],
    ids=repr,
)
async def test_a_client_is_told_whether_to_come_back(
    error: Exception, expected: tuple[int, str, str | None]
) -> None:
    """Where trying again may help it is told when, and where it may do harm it is not."""
    assert told(await Failing().get(error)) == expected


async def failed_login(error: Exception) -> Exception:
    """Return *error* as it comes out of an engine whose driver raises it while it connects."""
    credentials = Credentials("user", Password("password"), "1", "10.0.0.1", 5432, "db")
    provider = CredentialProvider(StaticSource(credentials))
    provider.load()
    engine = EngineFactory(Logins(provider)).create_async_engine()

    def connect(*args: Any, **arguments: Any) -> None:
        raise error

    with mock.patch.object(engine.sync_engine.dialect, "connect", connect):
        try:
            await async_probe(engine)
        except OperationalError as raised:
            return raised
    raise AssertionError


@pytest.mark.parametrize("error", [ConnectionRefusedError(111, "x"), TimeoutError()], ids=repr)
async def test_a_failed_connection_is_the_databases(error: Exception) -> None:
    """asyncpg's plain OSErrors are answered like every other driver's errors."""
    assert told(await Failing().get(await failed_login(error))) == (503, "unavailable", "5")


@pytest.mark.parametrize(
    "error",
    [TimeoutError("mine"), ConnectionRefusedError(111, "mine"), FileNotFoundError(2, "mine")],
    ids=repr,
)
async def test_an_endpoints_own_error_is_not_the_databases(error: Exception) -> None:
    """A payment service that does not answer must not be reported as a database that does not."""
    with pytest.raises(type(error), match="mine"):
        await Failing().get(error)


async def test_a_group_is_answered_by_its_gravest_error() -> None:
    """What passes by itself is no news beside what does not."""
    lost_and_closed = ExceptionGroup(
        "tasks", [LOST, ExceptionGroup("more", [errors.ConfigurationError("x")])]
    )

    assert told(await Failing().get(lost_and_closed)) == (500, "configuration", None)
    assert told(await Failing().get(ExceptionGroup("tasks", [UNIQUE, LOST]))) == (503, "connection-lost", "1")


async def test_a_group_with_an_error_of_the_endpoint_is_the_endpoints() -> None:
    """An unknown error beside a known one is not hidden behind it."""
    with pytest.raises(ExceptionGroup):
        await Failing().get(ExceptionGroup("tasks", [LOST, ValueError("mine")]))


async def test_a_handler_of_the_applications_own_goes_before() -> None:
    """Who knows better what a kind of error means says so as usual."""
    failing = Failing()

    async def teapot(request: Request, error: Exception) -> Response:
        return Response(status_code=418)

    failing.app.add_exception_handler(errors.LoginRefused, teapot)

    assert (await failing.get(errors.LoginRefused("x"))).status_code == 418


@pytest.mark.parametrize(
    ("path", "before"),
    [("/talk", ["websocket.accept"]), ("/refuse", [])],
    ids=["in a conversation", "before it"],
)
@pytest.mark.parametrize(
    ("error", "code"), [(errors.Saturated("x"), 1013), (errors.OutcomeUnknown("x"), 1011)], ids=repr
)
async def test_a_websocket_is_closed_with_a_code_that_says_whether_to_come_back(
    path: str, before: list[str], error: Exception, code: int
) -> None:
    """A client on a websocket gets no document, but it is told as much."""
    failing = Failing()
    failing.error = error

    *first, last = await Served(failing.app, {}).talk(path)

    assert [message["type"] for message in first] == before
    assert (last["type"], last["code"]) == ("websocket.close", code)


async def test_nothing_of_an_error_of_ours_leaves_the_service() -> None:
    """Messages of ours name users, addresses and secrets: they are for the log."""
    message = "user 'ledger' at db.internal:5432 was refused (secret arn:aws:1234)"
    for kind in (
        errors.LoginRefused,
        errors.ConfigurationError,
        errors.ServerUnreachable,
        errors.OutcomeUnknown,
    ):
        answer = await Failing().get(kind(message))

        assert not any(word in answer.text for word in ("ledger'", "db.internal", ":5432", "arn:"))


async def test_a_path_is_logged_as_its_template(caplog: pytest.LogCaptureFixture) -> None:
    """What clients write into a path is not written into the log."""
    with caplog.at_level(logging.DEBUG):
        answer = await Failing().get(errors.OutcomeUnknown("x"))

    (record,) = [record for record in caplog.records if event_of(record) == "request.failed"]
    told = fields_of(record)
    assert (told["path"], told["instance"]) == ("/fail/{what}", answer.json()["instance"])
    assert "secret-path" not in repr(record.__dict__)


async def test_an_outage_is_logged_in_one_line_each(caplog: pytest.LogCaptureFixture) -> None:
    """A thousand failed requests a second are a thousand lines, not a thousand tracebacks."""
    await Failing().get(errors.ServerUnreachable("PostgreSQL is away"))

    (record,) = [record for record in caplog.records if event_of(record) == "request.failed"]
    assert record.levelno == logging.WARNING
    assert record.exc_info is None
    assert "PostgreSQL is away" in fields_of(record)["cause"]


def chained(error: BaseException, behind: BaseException) -> BaseException:
    """Return *error* as if it were raised while *behind* is handled."""
    error.__context__ = behind
    return error


QUOTING = IntegrityError(
    "INSERT",
    {},
    type("UniqueViolation", (Exception,), {"sqlstate": "23505"})("twice\nDETAIL: (canary) exists"),
)


@pytest.mark.parametrize(
    "error",
    [
        chained(PendingRollbackError(f"roll back first. Original exception was: {QUOTING}"), QUOTING),
        chained(errors.OutcomeUnknown("no answer"), QUOTING),
        chained(errors.ConfigurationError("no table"), ExceptionGroup("tasks", [QUOTING])),
        chained(redis.exceptions.ResponseError("WRONGTYPE"), QUOTING),
        chained(errors.LedgerDBError("a driver's own"), QUOTING.orig),  # type: ignore[arg-type]
        InvalidRequestError("another instance with key (<class 'Person'>, ('canary',), None) is present"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_no_error_brings_the_rows_of_another_into_the_log(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """What was being handled, grouped or repeated has its text left out; where it happened is there."""
    await Failing().get(error)

    (record,) = [record for record in caplog.records if event_of(record) == "request.failed"]
    shown = logging.Formatter().format(record)
    assert "canary" not in shown + repr(record.__dict__)
    assert type(error).__name__ in shown
    assert "in fail" in shown


async def test_a_code_is_that_of_the_error_itself() -> None:
    """What is not found is not a duplicate, although one was met on the way to it."""
    problem = (await Failing().get(chained(errors.NotFound("no such row"), UNIQUE))).json()

    assert (problem["status"], problem.get("sqlstate"), problem.get("constraint")) == (404, None, None)
    assert (await Failing().get(UNIQUE)).json()["sqlstate"] == "23505"


class Colour(Enum):
    """A type of a column."""

    RED = 1


async def test_a_value_that_could_not_be_sent_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """SQLAlchemy quotes a value that is none of an enumeration's; that is a customer's data too."""
    engine = sqlalchemy.create_engine("sqlite://", hide_parameters=True)
    statement = sqlalchemy.select(
        sqlalchemy.literal("canary", sqlalchemy.Enum(Colour, validate_strings=True))
    )
    with engine.connect() as connection, pytest.raises(StatementError, match="canary") as raised:
        connection.execute(statement)
    engine.dispose()

    answer = await Failing().get(raised.value)

    (record,) = [record for record in caplog.records if event_of(record) == "request.failed"]
    assert "canary" not in logging.Formatter().format(record) + repr(record.__dict__) + answer.text


async def test_errors_of_the_framework_are_problem_documents_too_if_wanted() -> None:
    """A client of the service has one form of error to read; the headers of an error are kept."""
    missing = HTTPException(404, "there is no entry 7", {"X-Entry": "7"})

    answer = await Failing(http_errors=True).get(missing)

    assert (answer.headers["content-type"], answer.headers["x-entry"]) == ("application/problem+json", "7")
    assert answer.json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "there is no entry 7",
    }
    assert told(await Failing(http_errors=True).get(missing, "/no/such/path"))[0] == 404
    assert (await Failing().get(missing)).json() == {"detail": "there is no entry 7"}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (HTTPException(409, {"keys": [1, 2]}), {"title": "Conflict", "errors": {"keys": [1, 2]}}),
        (HTTPException(599, ""), {"title": "Error", "detail": ""}),
        (HTTPException(400, "half \ud800"), {"title": "Bad Request", "detail": "half \ud800"}),
    ],
    ids=["a detail that is no text", "a status without a name", "half a character"],
)
async def test_whatever_an_endpoint_raises_can_be_written(error: Exception, expected: dict[str, Any]) -> None:
    """An error answer never fails while it is written."""
    answer = await Failing(http_errors=True).get(error)

    document = json.loads(answer.content)
    assert expected.items() <= document.items()


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_stays_without(status: int) -> None:
    """HTTP allows no body there, so there is no document."""
    answer = await Failing(http_errors=True).get(HTTPException(status, headers={"ETag": "7"}))

    assert (answer.status_code, answer.content, answer.headers["etag"]) == (status, b"", "7")


@pytest.mark.parametrize(
    "body",
    [
        b'{"amount": "canary", "memos": {}}',
        b'{"amount": 1, "memos": {"\\ud800": "canary"}}',
        b'{"amount": canary}',
        b"[]",
    ],
)
async def test_a_request_that_is_not_valid_is_not_repeated(body: bytes) -> None:
    """What was sent may be a password, or half a character that cannot be sent back."""
    answer = await Failing(http_errors=True).post(body)

    assert told(answer) == (422, "about:blank", None)
    assert b"canary" not in answer.content
    assert all(problem.keys() == {"loc", "msg", "type"} for problem in answer.json()["errors"])


def test_a_service_without_redis_need_not_load_it() -> None:
    """The handlers know errors of Redis only where they are asked to."""
    script = (
        "import sys\nfrom fastapi import FastAPI\nfrom ledger_db.fastapi import install_error_handlers\n"
        "install_error_handlers(FastAPI(), redis={})\nprint('redis' in sys.modules)"
    )
    loaded = [
        subprocess.run(
            [sys.executable, "-c", script.format(wanted)], capture_output=True, text=True, check=True
        )
        for wanted in (False, True)
    ]

    assert [run.stdout.strip() for run in loaded] == ["False", "True"]
