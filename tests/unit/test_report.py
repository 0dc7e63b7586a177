"""Does a drill say what it saw, and can every one of its criteria turn it red?"""

from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from ledger_db.drill.console import HEADER, format_progress, format_rotation, format_summary
from ledger_db.drill.plan import DrillPlan, Progress
from ledger_db.drill.report import (
    DrillReport,
    Latency,
    RequestRecord,
    RotationFigures,
    describe_failure,
    measure_latency,
    percentile,
)

FIGURES = RotationFigures(
    number=2,
    strategy="alternating-users",
    version="3f2a9c1b-0000-4000-8000-123456789abc",
    requests=1234,
    failed=0,
    before=Latency(p50_ms=4.04, p99_ms=12.35),
    during=Latency(p50_ms=5.5, p99_ms=None),
    connections_most=8,
    secret_reads=3,
)

GOOD = DrillReport(
    seconds=45.2,
    requests=9000,
    failed=0,
    failures=(),
    rotations=(FIGURES,),
    rotations_expected=True,
    connections_most=10,
    connections_limit=10,
    connections_left=0,
)


def outcome(*, started: float = 0.0, milliseconds: float = 1.0, status: int | None = 200) -> RequestRecord:
    """Make an outcome of a request."""
    return RequestRecord(
        name="append", started=started, seconds=milliseconds / 1000, status=status, problem=None
    )


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1.0), (1, 1.0), (50, 50.0), (50.5, 51.0), (99, 99.0), (100, 100.0)]
)
def test_a_percentile_is_a_value_that_was_measured(percent: float, expected: float) -> None:
    """p99 of a hundred requests is the second slowest, not a number in between."""
    values = [float(number) for number in range(100, 0, -1)]

    assert expected == percentile(values, percent)


def test_nothing_has_no_percentile() -> None:
    """No request, no latency: not zero, which would look splendid."""
    assert percentile([], 99) is None
    assert Latency(p50_ms=None, p99_ms=None) == measure_latency([])


@given(st.lists(st.floats(min_value=0, max_value=1e6), min_size=1), st.floats(min_value=0, max_value=100))
def test_enough_values_are_within_a_percentile(values: list[float], percent: float) -> None:
    """At least the given share of the requests was as quick as the percentile says."""
    limit = percentile(values, percent)

    assert limit in values
    assert sum(value <= limit for value in values) >= percent / 100 * len(values) - 1e-6


def test_latency_counts_failed_requests_too() -> None:
    """Who waited five seconds for an error has waited five seconds."""
    outcomes = [outcome(milliseconds=2), outcome(milliseconds=5000, status=None)]

    assert Latency(p50_ms=2.0, p99_ms=5000.0) == measure_latency(outcomes)


@pytest.mark.parametrize(
    ("status", "problem", "failed"),
    [
        (200, None, False),
        (201, None, False),
        (299, None, False),
        (302, None, True),
        (404, None, True),
        (503, None, True),
        (None, "ConnectError: refused", True),
        (200, "not the entry that was acknowledged", True),
    ],
)
def test_a_request_has_failed_unless_it_was_answered_well(
    status: int | None, problem: str | None, *, failed: bool
) -> None:
    """Anything but a right answer with a status of success is a failure."""
    assert failed == replace(outcome(status=status), problem=problem).failed


def test_a_good_drill_passes() -> None:
    """With nothing to complain of, the verdict is green."""
    assert GOOD.problems() == ()
    assert GOOD.ok


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (replace(GOOD, failed=3), "3 of 9000 requests failed"),
        (replace(GOOD, requests=0), "no request was sent"),
        (replace(GOOD, rotations=()), "no rotation took place"),
        (replace(GOOD, flaws=("the chain does not verify: entry 3",)), "the chain does not verify: entry 3"),
        (replace(GOOD, connections_most=11), "11 connections to PostgreSQL, more than the 10"),
        (replace(GOOD, connections_most=None), "could not be counted"),
        (replace(GOOD, connections_left=1), "1 connections to PostgreSQL left behind"),
        (replace(GOOD, connections_left=None), "left behind could not be counted"),
        (replace(GOOD, mishap="the service ended with status 3"), "the service ended with status 3"),
    ],
)
def test_every_criterion_can_turn_a_drill_red(bad: DrillReport, complaint: str) -> None:
    """One thing wrong is enough, and the report says which."""
    assert not bad.ok
    assert [complaint] == [complaint for problem in bad.problems() if complaint in problem]
    assert complaint in format_summary(bad)


def test_a_drill_that_was_too_short_needs_no_rotation() -> None:
    """Ended before the first rotation was due, a drill has kept its promise."""
    assert replace(GOOD, rotations=(), rotations_expected=False).ok


def test_a_summary_says_passed_only_of_a_good_drill() -> None:
    """Whoever reads only the last line is not misled."""
    assert "PASSED" in format_summary(GOOD)
    assert "FAILED" not in format_summary(GOOD)
    assert "PASSED" not in format_summary(replace(GOOD, failed=1))


def test_a_summary_quotes_failed_requests() -> None:
    """The first failures are there to be read, with their moment and reason."""
    failure = replace(outcome(started=103.5, milliseconds=12, status=503), problem="try again later")
    described = describe_failure(failure, since=100.0)

    assert described == "append at 3.50 s: status 503 after 12 ms: try again later"
    assert described in format_summary(replace(GOOD, failed=1, failures=(described,)))


def test_a_request_without_an_answer_is_described_as_such() -> None:
    """A broken connection is told apart from an error of the service."""
    failure = replace(outcome(status=None), problem="ReadError: ")

    assert "no answer" in describe_failure(failure, since=0.0)


def test_a_rotation_is_one_line_that_fits_under_its_header() -> None:
    """Every figure stands under its name."""
    line = format_rotation(FIGURES, connections_limit=10)
    expected = (
        "  2  alternating-users  3f2a9c1b      1234       0     4.0 / 12.3        5.5 / -         8/10      3"
    )

    assert expected == line
    assert len(HEADER) == len(line)


@pytest.mark.parametrize(
    ("rotating", "due", "doing"),
    [(True, 3.0, "rotating now"), (False, 6.7, "next rotation in 7 s"), (False, None, "no more rotation")],
)
def test_progress_says_what_happens_next(*, rotating: bool, due: float | None, doing: str) -> None:
    """Who watches a terminal knows what the service is going through."""
    progress = Progress(seconds=8.3, requests=70, failed=1, rotating=rotating, next_rotation_seconds=due)

    assert f"8 s: 70 requests, 1 failed; {doing}" == format_progress(progress)


@pytest.mark.parametrize(
    ("planned", "took", "expected"),
    [(None, 16.9, False), (None, 17.0, True), (16.9, 18.0, False), (17.0, 17.1, True), (60.0, 3.0, False)],
)
def test_a_rotation_is_expected_if_one_fits(planned: float | None, took: float, *, expected: bool) -> None:
    """A drill that was ended early, or that waited at its end for slow requests, is not blamed for it."""
    plan = DrillPlan(
        roles=("app",), connections_limit=10, seconds=planned, every_seconds=15, window_seconds=1
    )

    assert expected == plan.had_time_for_a_rotation(took)
