"""What does an append do when the answer to its COMMIT gets lost?"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

import pytest

from examples.trust_ledger.chain import Draft
from examples.trust_ledger.ledger import Appended
from examples.trust_ledger.writing import AnswersLost, append_once
from ledger_db.errors import OutcomeUnknown, RetriesExhausted

if TYPE_CHECKING:
    from ledger_db import ConnectionManager

DRAFT = Draft(account="ada", amount=1, memo="")
APPENDED = cast("Appended", "the entry")


class ScriptedManager:
    """Lets each transaction end as it is told to, one after the other."""

    def __init__(self, *ends: Exception | Appended) -> None:
        self.transactions = 0
        self._ends = list(ends)

    async def async_run(self, work: Callable[[Any], Awaitable[Appended]]) -> Appended:
        """End as the script says; the work itself needs a database."""
        self.transactions += 1
        end = self._ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return end


async def append(manager: ScriptedManager) -> Appended:
    """Append an entry."""
    return await append_once(cast("ConnectionManager", manager), DRAFT, idempotency_key="k1")


async def test_an_append_that_may_be_there_is_looked_up() -> None:
    """The client hears what became of its entry, though the service did not at first."""
    manager = ScriptedManager(OutcomeUnknown("lost"), APPENDED)

    assert await append(manager) is APPENDED
    assert manager.transactions == 2


async def test_a_service_that_never_gets_an_answer_gives_up() -> None:
    """The client is asked to come again, with the reason in the log, and is not kept waiting for ever."""
    manager = ScriptedManager(*[OutcomeUnknown("lost") for _ in range(9)])

    with pytest.raises(AnswersLost) as caught:
        await append(manager)

    assert isinstance(caught.value.__cause__, OutcomeUnknown)
    assert manager.transactions == 3


async def test_what_has_been_repeated_long_enough_is_not_repeated_again() -> None:
    """Patience is counted once: a database that stays away is told of at the end of it."""
    manager = ScriptedManager(RetriesExhausted("away"), APPENDED)

    with pytest.raises(RetriesExhausted):
        await append(manager)
