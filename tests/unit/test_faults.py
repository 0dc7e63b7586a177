"""Do faults hit the requests they are meant for, as often as they should?"""

import sys
import threading
from collections import Counter

import pytest

from ledger_db.errors import ConfigurationError
from ledger_db.stand_in import faults
from ledger_db.stand_in.faults import Fault, FaultPlan


def hit(
    plan: FaultPlan, operation: str = "GetSecretValue", *, secret: str = "s", stage: str = "AWSCURRENT"
) -> Fault | None:
    """The fault that a request meets."""
    return plan.take(operation, secret_ids={secret}, stages={stage})


def test_without_faults_nothing_goes_wrong() -> None:
    """An empty plan leaves every request alone."""
    assert hit(FaultPlan()) is None


def test_a_fault_is_used_up() -> None:
    """A fault for two requests hits two."""
    plan = FaultPlan()
    plan.inject(faults.throttled(times=2))

    assert [hit(plan) is not None for _ in range(3)] == [True, True, False]
    assert plan.pending() == ()


def test_a_fault_without_an_end_stays() -> None:
    """A fault with no number hits until it is cleared."""
    plan = FaultPlan()
    plan.inject(faults.access_denied())

    assert all(hit(plan) for _ in range(10))
    plan.replace(())
    assert hit(plan) is None


def test_faults_are_used_in_order() -> None:
    """The first that matches is taken; the next one waits for its turn."""
    plan = FaultPlan()
    plan.inject(faults.throttled(), faults.unavailable())

    assert [fault.code for fault in (hit(plan), hit(plan)) if fault is not None] == [
        "ThrottlingException",
        "InternalServiceError",
    ]


def test_a_fault_is_for_its_operation() -> None:
    """Other operations pass by, and do not use it up."""
    plan = FaultPlan()
    plan.inject(faults.throttled("PutSecretValue"))

    assert hit(plan, "GetSecretValue") is None
    assert hit(plan, "PutSecretValue") is not None


def test_a_fault_is_for_its_label() -> None:
    """AWSPENDING can be denied while AWSCURRENT can be read."""
    plan = FaultPlan()
    plan.inject(faults.access_denied("GetSecretValue", stage="AWSPENDING"))

    assert hit(plan, stage="AWSCURRENT") is None
    assert hit(plan, stage="AWSPENDING") is not None


def test_a_fault_is_for_its_secret() -> None:
    """The other secret is not affected."""
    plan = FaultPlan()
    plan.inject(Fault(code="AccessDeniedException", secret_id="mine"))

    assert hit(plan, secret="yours") is None
    assert hit(plan, secret="mine") is not None


def test_a_fault_survives_the_way_to_another_process() -> None:
    """What is written as JSON is read as the same fault."""
    presets = (
        faults.throttled(),
        faults.unavailable(times=None),
        faults.access_denied(stage="AWSPENDING"),
        faults.slow(0.5),
        faults.dropped(),
        faults.lost_answer(),
        faults.rubbish(),
        faults.pending_without_value(),
    )

    assert list(presets) == [Fault.from_json(fault.to_json()) for fault in presets]


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"operations": "GetSecretValue"}, "no field 'operations'"),
        ({"times": 0}, "'times'"),
        ({"times": True}, "'times'"),
        ({"delay_seconds": "1"}, "'delay_seconds'"),
        ({"delay_seconds": -1}, "'delay_seconds'"),
        ({"drop": "yes"}, "'drop'"),
        ({"status": "500"}, "'status'"),
        ({"secret_id": 1}, "'secret_id'"),
    ],
)
def test_a_mistyped_fault_is_refused(document: dict[str, object], complaint: str) -> None:
    """A drill does not run without the fault that it believes in; the error names the field."""
    with pytest.raises(ConfigurationError, match=complaint):
        Fault.from_json(document)


def test_a_crowd_uses_a_fault_as_often_as_it_says() -> None:
    """Requests at the same time do not share a hit."""
    plan = FaultPlan()
    plan.inject(faults.throttled(times=500))
    hits: list[bool] = []
    start = threading.Barrier(8)

    def ask() -> None:
        start.wait()
        mine = [hit(plan) is not None for _ in range(200)]
        hits.extend(mine)

    crowd = [threading.Thread(target=ask) for _ in range(8)]
    usual = sys.getswitchinterval()
    # Threads take turns after nearly every instruction, so that a missing lock shows.
    sys.setswitchinterval(1e-6)
    try:
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()
    finally:
        sys.setswitchinterval(usual)

    assert Counter(hits) == {True: 500, False: 1100}
