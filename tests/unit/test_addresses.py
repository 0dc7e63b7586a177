"""When has a name left an address for good?"""

import logging

import pytest

from ledger_db.connections.addresses import Addresses, AddressWatch, addresses_of, is_address
from tests.support.events import event_of

OLD, NEW, OTHER = "10.0.0.1", "10.0.0.2", "10.0.0.3"


class World:
    """A name, what it leads to, and whether a login there works."""

    def __init__(self) -> None:
        self.addresses = Addresses()
        self.leads_to: frozenset[str] | None = frozenset({OLD})
        self.logs_in_at: str | None = NEW
        self.logins = 0
        self.renewals = 0
        self.watch = AddressWatch(
            self.addresses,
            lambda: "db.example",
            log_in=self.log_in,
            on_left=self.renew,
            look_up=self.look_up,
        )
        self.addresses.note_login(OLD)

    def look_up(self, name: str) -> frozenset[str]:
        """Answer as the resolver does."""
        assert name == "db.example"
        if self.leads_to is None:
            raise OSError("Temporary failure in name resolution")
        return self.leads_to

    def log_in(self) -> None:
        """Open a connection where the name leads."""
        self.logins += 1
        if self.logs_in_at is None:
            raise ConnectionRefusedError("nobody there yet")
        self.addresses.note_login(self.logs_in_at)

    def renew(self) -> None:
        """Replace what is stale."""
        self.renewals += 1

    def look(self, *answers: "frozenset[str] | None") -> None:
        """Look up once for each answer."""
        for answer in answers:
            self.leads_to = answer
            self.watch.look()


ALONE, MOVED = frozenset({OLD}), frozenset({NEW})


def test_an_address_is_left_after_three_look_ups_without_it() -> None:
    """Two may be a resolver that answers with another part of the truth each time."""
    world = World()
    world.look(MOVED, MOVED)
    assert (world.addresses.left, world.logins) == (frozenset(), 0)

    world.look(MOVED)
    assert world.addresses.left == {OLD}
    assert (world.logins, world.renewals) == (1, 1)


def test_an_address_that_is_back_is_counted_anew() -> None:
    """Three in turn, not three in all."""
    world = World()
    world.look(MOVED, MOVED, ALONE, MOVED, MOVED)
    assert world.addresses.left == frozenset()


def test_a_look_up_that_fails_says_nothing() -> None:
    """A resolver that is down leaves no address, and no count either."""
    world = World()
    world.look(None, None, None, None)
    assert world.addresses.left == frozenset()
    world.look(MOVED, None, MOVED, None, MOVED)
    assert world.addresses.left == {OLD}


def test_nothing_is_left_before_a_login_has_worked_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    """Connections that may still be good are better than none."""
    world = World()
    world.logs_in_at = None
    with caplog.at_level(logging.WARNING):
        world.look(MOVED, MOVED, MOVED)
    assert (world.addresses.left, world.renewals) == (frozenset(), 0)
    assert [event_of(record) for record in caplog.records] == ["connections.address_kept"]

    world.logs_in_at = NEW
    world.look(MOVED)
    assert (world.addresses.left, world.renewals) == (ALONE, 1)


@pytest.mark.parametrize("somewhere", [OLD, OTHER])
def test_a_login_that_went_somewhere_else_proves_nothing(somewhere: str) -> None:
    """It is tried again after three more look-ups, not at each."""
    world = World()
    world.logs_in_at = somewhere
    world.look(*[MOVED] * 5)
    assert (world.addresses.left, world.logins) == (frozenset(), 1)
    world.look(MOVED)
    assert world.logins == 2


def test_an_address_that_a_name_has_left_may_come_back() -> None:
    """A failover and the way back: what is connected to it then is good."""
    world = World()
    world.look(MOVED, MOVED, MOVED)
    world.logs_in_at = OLD
    world.look(ALONE)
    assert world.addresses.left == frozenset()
    world.look(ALONE, ALONE)
    assert world.addresses.left == {NEW}


def test_where_a_connection_has_no_address_nothing_is_left() -> None:
    """A local socket leads nowhere else."""
    world = World()
    world.addresses = Addresses()
    world.addresses.note_login(None)
    assert world.addresses.compare(MOVED) == frozenset()


@pytest.mark.parametrize("name", ["127.0.0.1", "::1", "/var/run/postgresql", "@abstract"])
def test_an_address_is_not_looked_up(name: str) -> None:
    """There is no thread for what leads nowhere else."""
    assert is_address(name)
    AddressWatch(Addresses(), lambda: name, log_in=lambda: None, on_left=lambda: None).start()


def test_a_name_is_looked_up_as_drivers_do() -> None:
    """The answer of the system, a file of hosts included."""
    assert not is_address("localhost")
    assert addresses_of("localhost") <= {"127.0.0.1", "::1"}
