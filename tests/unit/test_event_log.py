"""Does an event reach a log, whatever an application has made of logging?"""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ledger_db.event_log import EventLog
from tests.support.events import event_of, fields_of

log = EventLog("ledger_db.test")


@pytest.fixture
def factory() -> Iterator[Callable[[Callable[..., logging.LogRecord]], None]]:
    """Sets a factory of log records, as an application may, until the test ends."""
    before = logging.getLogRecordFactory()
    yield logging.setLogRecordFactory
    logging.setLogRecordFactory(before)


def test_a_cause_stands_in_the_text(caplog: pytest.LogCaptureFixture) -> None:
    """The default formatter shows it; the event is constant all the same, as template and as field."""
    log.warning("something.failed", cause="the reason %s", secret="name")

    (record,) = caplog.records
    assert record.getMessage() == "something.failed: the reason %s"
    assert record.msg == "something.failed: %s"
    assert fields_of(record) == {"event": "something.failed", "cause": "the reason %s", "secret": "name"}
    assert (record.levelname, record.filename) == ("WARNING", "test_event_log.py")


@pytest.mark.parametrize("name", ["version", "source", "server", "name", "message", "args", "cause"])
def test_an_application_may_have_fields_of_its_own(
    name: str, factory: Callable[[Any], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Also such as ours, and such as logging's own: neither replaces the other."""
    make = logging.getLogRecordFactory()

    def with_theirs(*given: Any, **named: Any) -> logging.LogRecord:
        record = make(*given, **named)
        if name not in vars(record):
            setattr(record, name, "theirs")
        return record

    factory(with_theirs)
    log.error("something.failed", **{name: "ours"})

    (record,) = caplog.records
    assert event_of(record) == "something.failed"
    assert fields_of(record)[name] == "ours"


@pytest.mark.parametrize("where", ["factory", "filter", "handler"])
def test_what_an_application_raises_there_stays_there(where: str, factory: Callable[[Any], None]) -> None:
    """Neither a login nor a rotation ends because a line could not be written."""
    asked: list[str] = []

    def fail(*given: Any, **named: Any) -> Any:
        asked.append(where)
        raise RuntimeError("the application's own")

    logger = logging.getLogger("ledger_db.test")
    handler = logging.Handler()
    handler.emit = fail  # type: ignore[method-assign] # as a handler of somebody's that lacks handleError
    if where == "factory":
        factory(fail)
    elif where == "filter":
        logger.addFilter(fail)
    else:
        logger.addHandler(handler)
    try:
        log.error("something.failed")
    finally:
        logger.removeFilter(fail)
        logger.removeHandler(handler)

    assert asked == [where]
