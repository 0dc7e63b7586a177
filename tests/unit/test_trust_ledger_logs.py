"""Can a program read what the Trust Ledger logs, and is nothing in it that should not be?"""

import json
import logging
from collections.abc import Iterator

import pytest

from examples.trust_ledger.logs import JSONLines, configure_logging, request_id


@pytest.fixture
def in_a_request() -> Iterator[None]:
    """Be in the middle of a request."""
    token = request_id.set("r-1")
    yield
    request_id.reset(token)


def line_of(**extra: object) -> dict[str, object]:
    """Write down one event, and read it again."""
    record = logging.makeLogRecord(
        {"name": "ledger", "levelname": "WARNING", "msg": "went.wrong", "process": 7, **extra}
    )
    written = JSONLines().format(record)
    assert "\n" not in written
    read: dict[str, object] = json.loads(written)
    return read


def test_a_line_holds_the_event_and_its_fields(in_a_request: None) -> None:
    """Whoever searches the log finds the event, its fields and the request."""
    line = line_of(attempt=2)

    assert line.pop("at")
    assert line == {
        "level": "warning",
        "logger": "ledger",
        "event": "went.wrong",
        "process": 7,
        "request_id": "r-1",
        "attempt": 2,
    }


def test_outside_of_a_request_there_is_no_request() -> None:
    """A line of the start or the end of the service says nothing about requests."""
    assert "request_id" not in line_of()


def test_a_traceback_stays_in_its_line() -> None:
    """One event is one line, however long its story is."""
    error = ValueError("first\nsecond")
    line = line_of(exc_info=(type(error), error, error.__traceback__))

    assert "ValueError: first\nsecond" in str(line["traceback"])


def test_what_is_no_json_is_written_all_the_same() -> None:
    """A field of an unusual type costs nobody the line."""
    assert line_of(path=object())["path"]


def test_logging_that_somebody_configured_is_left_alone() -> None:
    """An application that hosts the service keeps its own log."""
    before = list(logging.getLogger().handlers)
    configure_logging("DEBUG")

    assert before
    assert logging.getLogger().handlers == before
