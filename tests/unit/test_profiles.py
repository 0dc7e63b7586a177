"""Does a profile preset what it says, and nothing that was set by itself?"""

import pytest
from sqlalchemy.pool import NullPool, QueuePool

from ledger_db import ConnectionManager, Settings


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        (None, (5, 10, False, "queue")),
        ("production", (5, 10, False, "queue")),
        ("development", (2, 3, True, "queue")),
        ("test", (5, 10, False, "none")),
    ],
)
def test_a_profile_presets_pools_and_echo(
    profile: str | None, expected: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One variable makes a process fit for production, a developer's machine, or tests."""
    if profile is not None:
        monkeypatch.setenv("LEDGER_DB_PROFILE", profile)

    settings = Settings()

    assert (settings.pool_size, settings.max_overflow, settings.echo, settings.pool) == expected


def test_what_is_set_by_itself_goes_before_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the environment and by argument alike, whichever of them the profile comes from."""
    monkeypatch.setenv("LEDGER_DB_PROFILE", "development")
    monkeypatch.setenv("LEDGER_DB_POOL_SIZE", "7")

    settings = Settings(echo=False)

    assert (settings.pool_size, settings.max_overflow, settings.echo) == (7, 3, False)


def test_an_argument_goes_before_the_profile_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test may ask for the production pools while the process has the profile for tests."""
    monkeypatch.setenv("LEDGER_DB_PROFILE", "test")

    assert Settings(pool="queue").pool == "queue"
    assert Settings(profile="production").pool == "queue"


@pytest.mark.parametrize(("profile", "kind"), [("development", QueuePool), ("test", NullPool)])
def test_both_engines_have_the_pool_of_the_profile(profile: str, kind: type) -> None:
    """What is set reaches SQLAlchemy, for PostgreSQL's engines and for SQLite's."""
    postgres = {"database_user": "u", "database_host": "127.0.0.1"}
    for where in ({"database_url": "sqlite://"}, postgres):
        database = ConnectionManager(Settings(profile=profile, echo=False, **where))._database
        assert database is not None

        assert isinstance(database.engine.pool, kind)
        assert isinstance(database.async_engine.pool, kind)


def test_capacity_is_the_same_with_and_without_a_pool() -> None:
    """Requests are still admitted by pool_size and max_overflow where no pool would make them wait."""
    settings = Settings(profile="test", database_url="sqlite://", pool_size=2, max_overflow=1)
    database = ConnectionManager(settings)._database
    assert database is not None

    assert database.options.capacity == 3


@pytest.mark.parametrize(
    ("profile", "expected"), [("production", (30.0, 15.0)), ("development", (0.0, 0.0)), ("test", (0.0, 0.0))]
)
def test_only_a_fleet_spreads_its_rotations(profile: str, expected: tuple[float, float]) -> None:
    """On a developer's machine, and in tests, what a rotation does is seen at once."""
    settings = Settings(profile=profile)

    assert (settings.renewal_spread_seconds, settings.announcement_spread_seconds) == expected
