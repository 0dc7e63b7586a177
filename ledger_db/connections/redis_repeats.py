"""When is what was asked of Redis asked again?"""

from typing import TYPE_CHECKING, Any

import redis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable

_MAYBE_DONE = (
    "it was sent and may have been done, so it is not sent again; see LEDGER_DB_REDIS_REPEAT_WRITES for what "
    "may be done twice"
)


class _Repeats:
    """
    Mixed into redis-py's retries: what may have been done is not done again.

    A time-out is not repeated either: who waits for a server that has stalled has waited long enough.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        # Weakly: connections are to end when they are dropped, not when garbage is collected.
        self.connection: Callable[[], Any] = lambda: None

    def call_with_retry(self, do: Any, fail: Any, *arguments: Any, **named: Any) -> Any:
        def failed(error: Exception, *count: int) -> Any:
            connection = self.connection()
            if connection is not None and not connection.asked.may_repeat:
                error.add_note(_MAYBE_DONE)
                raise error
            # Both of these names: redis-py's own, and what a socket raises.
            if isinstance(error, redis.TimeoutError | TimeoutError):
                raise error
            return fail(error, *count)

        return super().call_with_retry(do, failed, *arguments, **named)  # type: ignore[misc] # mixed into


class Repeats(_Repeats, Retry):
    """For connections of threads."""


class AsyncRepeats(_Repeats, AsyncRetry):
    """For connections of an event loop."""
