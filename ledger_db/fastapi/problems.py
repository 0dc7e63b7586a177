"""
Answers to requests that failed because of the database.

The client reads a problem document (RFC 9457) with what it can act on.  The log learns the rest, once, under
the same ``instance``.
"""

import logging
import re
import uuid
from http import HTTPStatus
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from fastapi.utils import is_body_allowed_for_status_code
from sqlalchemy.exc import DBAPIError, PendingRollbackError, SQLAlchemyError, StatementError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketState

from ledger_db.answers.postgres import own_sqlstate
from ledger_db.errors import LedgerDBError
from ledger_db.event_log import EventLog
from ledger_db.fastapi.problem_kinds import Kind, gravest_of
from ledger_db.fastapi.problem_model import MEDIA_TYPE, Problem, answer
from ledger_db.redaction import behind, describe
from ledger_db.transactions.meaning import constraint_of, told_sqlstate

log: EventLog = EventLog(__name__)

_TYPES: Final = "urn:ledger-db:problem:"
_SERVER_FAULT = 500
_TRY_AGAIN_LATER = 1013
_INTERNAL_ERROR = 1011

_IDENTITY = re.compile(r"\(<class .*")
"""How SQLAlchemy writes a primary key, and what may follow it."""


class DatabaseFault(Exception):
    """Stands in a log for an error whose text, or the text of what led to it, repeats values of rows."""


def install_error_handlers(app: Starlette, *, http_errors: bool = False, redis: bool = True) -> None:
    """
    Let *app* answer errors of the database as problem documents, the same with every driver.

    An application that is mounted in another one has handlers of its own: install them there too.  A
    WebSocket is closed, with code 1013 (try again later) or 1011.

    Args:
        app: Before it has served its first request.

        http_errors: Whether `HTTPException` and requests that are not valid become problem documents too.

        redis: Whether errors of Redis are answered; costs a service without Redis the memory of redis-py.
    """
    # A task group wraps what its tasks raise.
    kinds: list[type[Exception]] = [LedgerDBError, SQLAlchemyError, ExceptionGroup]
    if redis:
        from redis import RedisError  # noqa: PLC0415 - 6 MB for those who have a Redis

        kinds.append(RedisError)
    # It is for requests and for websockets, and Starlette's type knows only handlers of one of them.
    handler: Any = answer_database_error
    for kind in kinds:
        app.add_exception_handler(kind, handler)
    if http_errors:
        app.add_exception_handler(HTTPException, answer_http_exception)
        app.add_exception_handler(RequestValidationError, answer_invalid_request)


def _described(what: str) -> dict[str, Any]:
    return {"description": what, "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}}


problem_responses: Final[dict[int | str, dict[str, Any]]] = {
    409: _described("The data contradicts what is stored"),
    422: _described("The request, or a value in it, is not acceptable"),
    500: _described("The service has made a mistake"),
    503: _described("The database cannot be used at the moment"),
    504: _described("The database took too long"),
}
"""What the handlers answer, all of them, for ``FastAPI(responses=problem_responses)``."""


async def answer_database_error(connection: HTTPConnection, error: Exception) -> Response | None:
    """
    Answer what `gravest_of` knows.

    Raises:
        Exception: *error* itself, if it has nothing to do with a database: as if nobody had looked at it.
    """
    known = gravest_of(error)
    if known is None:
        raise error
    kind, culprit = known
    instance = f"urn:uuid:{uuid.uuid4()}" if kind.status >= _SERVER_FAULT else None
    _report(connection, culprit, kind, instance)
    if isinstance(connection, WebSocket):
        await _close(connection, kind)
        return None
    return answer(_problem(culprit, kind, instance), _retry_after(kind))


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """Answer an `HTTPException` with a problem document; its headers are kept."""
    assert isinstance(error, HTTPException)
    if not is_body_allowed_for_status_code(error.status_code):
        return Response(status_code=error.status_code, headers=error.headers)
    # Starlette says text; FastAPI lets it be anything.
    detail: Any = error.detail
    told = {"detail": detail} if isinstance(detail, str) else {"errors": detail}
    problem = Problem(title=_phrase(error.status_code), status=error.status_code, **told)
    return answer(problem, dict(error.headers or {}))


async def answer_invalid_request(request: Request, error: Exception) -> Response:
    """Say what is wrong with a request, without repeating what was sent."""
    assert isinstance(error, RequestValidationError)
    errors = [{name: problem[name] for name in ("loc", "msg", "type")} for problem in error.errors()]
    return answer(
        Problem(
            title="The request is not valid", status=422, detail="See the errors, one by one.", errors=errors
        )
    )


def _problem(error: BaseException, kind: Kind, instance: str | None) -> Problem:
    acts = kind.status < _SERVER_FAULT
    return Problem(
        type=_TYPES + kind.name,
        title=kind.title,
        status=kind.status,
        detail=kind.detail,
        instance=instance,
        # Only where the client can act on them; otherwise they say how the service is built.
        constraint=constraint_of(error) if acts else None,
        sqlstate=told_sqlstate(error) if acts else None,
    )


def _retry_after(kind: Kind) -> dict[str, str] | None:
    return None if kind.retry_after_seconds is None else {"Retry-After": str(kind.retry_after_seconds)}


async def _close(websocket: WebSocket, kind: Kind) -> None:
    if websocket.application_state is not WebSocketState.DISCONNECTED:
        code = _INTERNAL_ERROR if kind.retry_after_seconds is None else _TRY_AGAIN_LATER
        await websocket.close(code, kind.title)


def _report(connection: HTTPConnection, error: BaseException, kind: Kind, instance: str | None) -> None:
    what = {
        # The template: a path that was sent may hold anything.
        "path": getattr(connection.scope.get("route"), "path", None),
        "method": connection.scope.get("method"),
        "status": kind.status,
        "problem": kind.name,
        # Of ours, that of its cause; never of what was merely being handled when it was raised.
        "sqlstate": told_sqlstate(error) or (told_sqlstate(error.__cause__) if error.__cause__ else None),
    }
    if instance is None:
        log.debug("request.refused", **what)
        return
    log.log(
        logging.ERROR if kind.status == _SERVER_FAULT else logging.WARNING,
        "request.failed",
        **what,
        instance=instance,
        cause=_cause(error),
        exc_info=_shown(error) if kind.traced else None,
    )


def _shown(error: BaseException) -> tuple[type[BaseException], BaseException, Any]:
    """Return what a log may show of *error*: the way that led to it, and a line that is known to be safe."""
    if not any(map(_quotes_rows, behind(error))):
        return type(error), error, error.__traceback__
    # A DETAIL line repeats the row, and the causes have the same text again.
    statement = f"\n[SQL: {error.statement}]" if isinstance(error, StatementError) else ""
    return DatabaseFault, DatabaseFault(_cause(error) + statement), error.__traceback__


def _cause(error: BaseException) -> str:
    if isinstance(error, PendingRollbackError):
        # It repeats the text of the error before it.
        return type(error).__name__
    if isinstance(error, StatementError) and not isinstance(error, DBAPIError):
        # A value that could not even be sent; the text quotes it.
        return type(error.orig).__name__
    return _IDENTITY.sub("(...)", describe(error))


def _quotes_rows(error: BaseException) -> bool:
    return isinstance(error, SQLAlchemyError) or own_sqlstate(error) is not None


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
