"""How does a test wait for something that another thread or process does?"""

import time
from collections.abc import Callable


def eventually(condition: Callable[[], bool], what: str, *, timeout_seconds: float = 60.0) -> None:
    """Wait until *condition* holds, and fail with *what* was expected if it never does."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_seconds:g} s: {what}"
        time.sleep(0.02)
