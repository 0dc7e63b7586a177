"""Does the hash chain of the Trust Ledger notice whatever is done to it?"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, strategies as st

from examples.trust_ledger.chain import START, Draft, Entry, canonical_json, compute_hash, find_flaw, seal

NOON = datetime(2026, 11, 20, 12, 0, 0, 250, tzinfo=UTC)

DRAFTS = st.builds(
    Draft,
    account=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    amount=st.integers(min_value=-(2**63) + 1, max_value=2**63 - 1),
    memo=st.text(st.characters(exclude_categories=["Cs"])),
)


def make_chain(length: int) -> list[Entry]:
    """Make a sound chain of *length* entries."""
    chain: list[Entry] = []
    for number in range(1, length + 1):
        draft = Draft(account="ada", amount=number * 100, memo=f"payment {number}")
        after = chain[-1].link if chain else START
        chain.append(seal(draft, after=after, idempotency_key=f"key-{number}", recorded_at=NOON))
    return chain


def first_flaw(chain: Sequence[Entry]) -> str | None:
    """Walk along *chain* as a verification does."""
    last = START
    for entry in chain:
        flaw = find_flaw(entry, after=last)
        if flaw is not None:
            return flaw
        last = entry.link
    return None


def test_a_chain_that_nobody_touched_is_sound() -> None:
    """A ledger that was only ever appended to verifies."""
    assert first_flaw(make_chain(5)) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: replace(entry, account="bob"),
        lambda entry: replace(entry, amount=entry.amount + 1),
        lambda entry: replace(entry, memo=entry.memo + " "),
        lambda entry: replace(entry, recorded_at=entry.recorded_at + timedelta(microseconds=1)),
        lambda entry: replace(entry, idempotency_key="another"),
        lambda entry: replace(entry, hash="0" * 64),
        lambda entry: replace(entry, previous_hash="0" * 64),
    ],
    ids=["account", "amount", "memo", "recorded_at", "idempotency_key", "hash", "previous_hash"],
)
def test_every_changed_field_is_noticed(change: Callable[[Entry], Entry]) -> None:
    """No part of a recorded entry can be altered unnoticed."""
    chain = make_chain(4)
    chain[2] = change(chain[2])

    assert "entry 3" in str(first_flaw(chain))


def test_a_change_that_is_sealed_again_is_noticed_at_the_next_entry() -> None:
    """Whoever recomputes the hash of an altered entry has broken the entry after it."""
    chain = make_chain(4)
    forged = replace(chain[1], amount=1)
    chain[1] = replace(forged, hash=compute_hash(forged))

    assert "entry 3 is chained to another entry" in str(first_flaw(chain))


def test_a_missing_entry_is_noticed() -> None:
    """An entry can not be dropped out of the middle."""
    chain = make_chain(4)
    del chain[1]

    assert "entry 3 follows entry 1" in str(first_flaw(chain))


def test_entries_that_changed_places_are_noticed() -> None:
    """The order of entries is part of the record."""
    chain = make_chain(3)
    chain[0], chain[1] = chain[1], chain[0]

    assert first_flaw(chain) is not None


def test_the_hash_does_not_depend_on_the_time_zone_of_the_reader() -> None:
    """PostgreSQL hands times back in the session's zone; the entry is the same."""
    entry = make_chain(1)[0]
    elsewhere = replace(entry, recorded_at=entry.recorded_at.astimezone(timezone(timedelta(hours=5.5))))

    assert canonical_json(entry) == canonical_json(elsewhere)


def test_the_canonical_form_is_fixed() -> None:
    """Anybody can recompute a hash with any language: the bytes are these."""
    entry = seal(Draft("zoë", -5, 'a "b"'), after=START, idempotency_key="k", recorded_at=NOON)
    expected = (
        '{"account":"zoë","amount":-5,"id":1,"idempotency_key":"k","memo":"a \\"b\\"",'
        '"recorded_at":"2026-11-20T12:00:00.000250+00:00"}'
    )

    assert expected.encode() == canonical_json(entry)


@given(first=DRAFTS, second=DRAFTS)
def test_different_entries_never_share_a_hash(first: Draft, second: Draft) -> None:
    """Two entries have the same hash only if they say the same."""
    one = seal(first, after=START, idempotency_key="k", recorded_at=NOON)
    other = seal(second, after=START, idempotency_key="k", recorded_at=NOON)

    assert (first == second) == (one.hash == other.hash)
