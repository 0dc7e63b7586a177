"""Does a forked child make everything its own, in an order that holds?"""

import os
from collections.abc import Callable

import pytest

from ledger_db.forking import at_fork


class Owner:
    """Writes down what it is told at a fork."""

    def __init__(self, told: list[str]) -> None:
        self.told = told
        at_fork(before=self.leave, in_parent=self.come_back, in_child=self.renew)

    def leave(self) -> None:
        """Note it."""
        self.told.append("leave")

    def come_back(self) -> None:
        """Note it."""
        self.told.append("come back")

    def renew(self) -> Callable[[], None]:
        """Note it, and go on later."""
        self.told.append("renew")
        return lambda: self.told.append("go on")


def in_child(tell: Callable[[], list[str]]) -> list[str]:
    """Fork, and return what *tell* returns in the child."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(theirs, "\n".join(tell()).encode())
        os._exit(0)
    os.close(theirs)
    os.waitpid(child, 0)
    with os.fdopen(ours, encoding="utf-8") as pipe:
        return pipe.read().splitlines()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_nobody_goes_on_before_everybody_is_renewed() -> None:
    """A thread that is started again finds no lock of the parent's, whoever has registered first."""
    told: list[str] = []
    owners = [Owner(told), Owner(told)]
    in_the_child = in_child(lambda: told)

    assert in_the_child == ["leave", "leave", "renew", "renew", "go on", "go on"]
    assert told == ["leave", "leave", "come back", "come back"]
    del owners


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_what_is_gone_is_not_called() -> None:
    """A manager that was dropped is not kept by being known here."""
    told: list[str] = []
    Owner(told)

    assert in_child(lambda: told) == []
    assert told == []
