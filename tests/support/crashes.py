"""
How does a test kill a rotation in the middle?

For real: a child is forked from this warm process, and ends itself with ``os._exit`` right before or right
after its n-th call to AWS, to PostgreSQL or to Redis.  No ``finally`` runs, no connection is closed, nothing
is undone.
"""

import gc
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg2
import redis
import redis.connection
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - it is a class

DIED = 42
_FAILED = 43


class Boundaries:
    """
    Counts the moments before and after calls, and lets one of them be the last.

    Args:
        fatal: Which; None for no one.

        die: What happens then.
    """

    def __init__(self, fatal: int | None = None, *, die: Callable[[], None] = lambda: os._exit(DIED)) -> None:
        self.passed = 0
        self._fatal = fatal
        self._die = die

    def __call__(self) -> None:
        """Pass one boundary."""
        self.passed += 1
        if self.passed == self._fatal:
            self._die()

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return *call* with a boundary before it and one after it."""

        def watched(*args: Any, **kwargs: Any) -> Any:
            self()
            answer = call(*args, **kwargs)
            self()
            return answer

        return watched


class WatchedClient:
    """A boto3 client whose every operation has a boundary before it and one after it."""

    def __init__(self, client: Any, boundaries: Boundaries) -> None:
        self._client = client
        self._boundaries = boundaries

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return self._boundaries.around(found) if callable(found) and name != "exceptions" else found


class watched_postgres:  # noqa: N801 - used as a function
    """While in this block, every login and statement of psycopg2, COMMIT among them, has its boundaries."""

    def __init__(self, boundaries: Boundaries) -> None:
        self._boundaries = boundaries
        self._connect = psycopg2.connect

    def __enter__(self) -> None:
        around = self._boundaries.around

        class WatchedCursor(Cursor):  # type: ignore[misc] # psycopg2 has no types
            def execute(self, *args: Any) -> None:
                around(super().execute)(*args)

        def connect(**parameters: Any) -> Any:
            return self._connect(**parameters, cursor_factory=WatchedCursor)

        psycopg2.connect = around(connect)

    def __exit__(self, *_: object) -> None:
        psycopg2.connect = self._connect


@contextmanager
def watched_redis(boundaries: Boundaries) -> Iterator[None]:
    """
    While in this block, every login and command of redis-py has a boundary before and one after it.

    In this thread only: a manager that was inherited by a forked process has threads of its own there.
    """
    here = threading.get_ident()
    login = redis.connection.AbstractConnection.connect
    command = redis.Redis.execute_command

    def connect(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = boundaries.around(login) if threading.get_ident() == here else login
        return call(self, *args, **kwargs)

    def execute_command(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = boundaries.around(command) if threading.get_ident() == here else command
        return call(self, *args, **kwargs)

    redis.connection.AbstractConnection.connect = connect  # type: ignore[method-assign] # put back below
    redis.Redis.execute_command = execute_command  # type: ignore[method-assign]
    try:
        yield
    finally:
        redis.connection.AbstractConnection.connect = login  # type: ignore[method-assign]
        redis.Redis.execute_command = command  # type: ignore[method-assign]


def in_child(work: Callable[[Boundaries], None], *, fatal: int | None) -> tuple[int, int]:
    """
    Do *work* in a process of its own that dies at the boundary *fatal*.

    Returns:
        The exit status, and how many boundaries were passed (0 if it died).
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _run_and_exit(work, fatal, writing)
    os.close(writing)
    with closing(os.fdopen(reading)) as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), int(told or 0)


def _run_and_exit(work: Callable[[Boundaries], None], fatal: int | None, writing: int) -> None:
    # The parent's connections are in here too.  Nothing may collect them: that would say goodbye on their
    # sockets.
    gc.disable()
    # A time limit of the parent's is not for the child.
    signal.alarm(0)
    boundaries = Boundaries(fatal)
    try:
        work(boundaries)
        os.write(writing, str(boundaries.passed).encode())
        os._exit(0)
    except BaseException:  # noqa: BLE001 - whatever it is, a child must not go on as a second test run
        traceback.print_exc()
    finally:
        os._exit(_FAILED)
