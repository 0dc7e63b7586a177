"""Where can a rotation be killed that talks to Redis?"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
import redis.connection

from tests.crashes import Boundaries


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
