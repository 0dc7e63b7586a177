"""
The startup check: does the server answer, and if not, is it worth waiting?

Transient failures are tried again with full jitter, permanent ones end it at once, and all of it ends after
the time allowed, even if a connection attempt hangs.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_before_delay,
    wait_random_exponential,
)

from ledger_db.answers.login_errors import find, judge
from ledger_db.answers.reason import Reason, Verdict
from ledger_db.connections.listeners import failed_in
from ledger_db.errors import ConfigurationError, LedgerDBError, Retryable, ServerUnreachable
from ledger_db.event_log import EventLog
from ledger_db.redaction import describe

log: EventLog = EventLog(__name__)

T = TypeVar("T")


Note = Callable[[BaseException], None]


def check(name: str, probe: Callable[[], T], *, timeout_seconds: float, note: Note = lambda error: None) -> T:
    """
    Call *probe* until it works.

    Args:
        name: What is checked, for log lines and messages.

        probe: Connects and asks something.

        timeout_seconds: When to give up.

        note: Told of each failure that is tried again.

    Raises:
        ServerUnreachable: Transient failures only, until the time was up.

        ConfigurationError: The server answered, and only a person can mend what it said.

        LedgerDBError: Whatever *probe* raises of these by itself.
    """
    began = time.monotonic()
    try:
        answer = Retrying(**_policy(name, timeout_seconds, note))(probe)
    except Exception as error:
        translated = _translated(name, error, time.monotonic() - began)
        # An error of ours is complete as it is, and is not its own cause.
        if translated is error:
            raise
        raise translated from error
    _report(name, time.monotonic() - began)
    return answer


async def async_check(name: str, probe: Callable[[], Awaitable[T]], *, timeout_seconds: float) -> T:
    """Same as `check`, on an event loop; an attempt that hangs is cancelled."""
    began = time.monotonic()
    met: list[BaseException] = []

    async def attempt() -> T:
        # tenacity awaits only what it can see to be a coroutine function, and *probe* may be a lambda.
        return await probe()

    try:
        async with asyncio.timeout(timeout_seconds):
            answer: T = await AsyncRetrying(**_policy(name, timeout_seconds, met.append))(attempt)
    except Exception as ended:  # noqa: BLE001 - raised again below, translated
        # Where the time was up in the middle of an attempt, what the one before has met says more.
        error = met[-1] if met and not str(ended) else ended
    else:
        _report(name, time.monotonic() - began)
        return answer
    translated = _translated(name, error, time.monotonic() - began)
    # An error of ours is complete as it is, and is not its own cause.
    if translated is error:
        raise error
    raise translated from error


def no_writer(name: str, seconds: float, cause: str) -> ServerUnreachable:
    """Return what is raised if *name* has led to a standby for all the time that there was."""
    return ServerUnreachable(
        f"{name} led to no server that takes writes within {seconds:.1f} s: {cause}; look for a failover "
        "that has not ended, let the host name the writer, or set LEDGER_DB_DATABASE_TARGET=any if a standby "
        "will do"
    )


def _policy(name: str, timeout_seconds: float, note: Note) -> dict[str, Any]:
    return {
        "retry": retry_if_exception(_is_transient),
        # Full jitter, so that a fleet that starts together does not knock together; never a wait of
        # nothing, which would knock at once.
        "wait": wait_random_exponential(multiplier=0.1, min=0.05, max=2),
        # "Before": stop_after_delay would sleep past the end once.
        "stop": stop_before_delay(timeout_seconds),
        "before_sleep": lambda state: _report_retry(name, state, note),
        "reraise": True,
    }


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, LedgerDBError):
        return isinstance(error, Retryable)
    return judge(error) is Verdict.TRANSIENT


def _translated(name: str, error: BaseException, seconds: float) -> LedgerDBError:
    """Log why the start fails, and return the error to raise."""
    transient = _is_transient(error)
    event = "startup.unreachable" if transient else "startup.failed"
    cause = describe(error) if str(error) else "an attempt that never ended"
    log.error(event, server=name, seconds=round(seconds, 3), cause=cause)
    if isinstance(error, LedgerDBError):
        return error
    if find(error).reason is Reason.NOT_PRIMARY:
        return no_writer(name, seconds, cause)
    if transient:
        # A server without TLS takes the greeting for the beginning of a command, and waits for the rest.
        silent = find(error).reason is Reason.NO_ANSWER
        tls = ", or LEDGER_DB_DATABASE_SSLMODE or LEDGER_DB_REDIS_TLS if it is silent" if silent else ""
        return ServerUnreachable(
            f"{name} was not ready within {seconds:.1f} s: {cause}; check that it runs and that its address "
            f"is right{tls}"
        )
    if listener := failed_in(error):
        return ConfigurationError(
            f"{name} was reached, and {listener}, which listens to the engine's new connections, failed on "
            f"one: {cause}; mend that, or take it off the engine"
        )
    return ConfigurationError(
        f"{name} cannot be used, and trying again will not help: {cause}; mend the settings, the certificate "
        "or the permissions"
    )


def _report_retry(name: str, state: RetryCallState, note: Note) -> None:
    outcome = state.outcome
    error = outcome.exception() if outcome else None
    if error is not None:
        note(error)
    log.warning(
        "startup.retrying",
        server=name,
        attempt=state.attempt_number,
        wait_seconds=round(state.upcoming_sleep, 3),
        cause=describe(error) if error else "",
    )


def _report(name: str, seconds: float) -> None:
    log.info("startup.checked", server=name, seconds=round(seconds, 3))
