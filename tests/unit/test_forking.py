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


class Failing(Owner):
    """Cannot be renewed, and is equal to everything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment] # as a dataclass that compares its fields has none

    def renew(self) -> Callable[[], None]:
        """Fail."""
        raise RuntimeError("a source of the application's own")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_that_fails_stops_none_of_the_others(capfd: pytest.CaptureFixture[str]) -> None:
    """Equal or not hashable, first or last: each object is renewed for itself."""
    told: list[str] = []
    owners = [Owner(told), Failing(told), Failing(told), Owner(told)]

    assert in_child(lambda: told).count("renew") == 2
    assert told.count("leave") == 4
    del owners
