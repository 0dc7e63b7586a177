"""When is a cause news?"""

from ledger_db.credentials.once_a_minute import OnceAMinute
from ledger_db.testing import ManualClock


def test_what_was_told_within_a_minute_is_none() -> None:
    """Each cause has a minute of its own, from when it was told, not from when it was seen."""
    clock = ManualClock()
    told = OnceAMinute(now=clock)

    assert told.is_news("throttled")
    clock.advance(30)
    assert told.is_news("denied")
    assert not told.is_news("throttled")
    clock.advance(30)
    assert told.is_news("throttled")
    assert not told.is_news("denied")


def test_what_differs_each_time_makes_no_news() -> None:
    """AWS names the request and the time in what it says."""
    told = OnceAMinute(now=ManualClock())

    assert told.is_news("Signature expired: 20261130T101112Z (request 8f14e45f-ceea-467f-a0f9-1d2c3b4a5e6f)")
    assert not told.is_news(
        "Signature expired: 20261130T101955Z (request 1f2e3d4c-0000-4abc-8def-aa00bb11cc22)"
    )


def test_it_does_not_grow() -> None:
    """What was told long ago is forgotten."""
    clock = ManualClock()
    told = OnceAMinute(now=clock)
    for number in range(1000):
        clock.advance(1)
        told.is_news("x" * number)

    assert len(told._told) <= 60
