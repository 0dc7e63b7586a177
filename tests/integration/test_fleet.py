"""Does a fleet adopt a rotation without a storm, and at once when somebody is in a hurry?"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest
from sqlalchemy import text

from ledger_db import ConnectionManager, Settings
from ledger_db.answers.announcement import DEFAULT_CHANNEL, Announcement
from ledger_db.sandbox import Sandbox
from tests.integration.test_signals import listening
from tests.support.waiting import eventually

LONG = {"renewal_spread_seconds": 600.0}
MOST_SESSIONS = 5


@pytest.fixture
def old_sessions(environment: Sandbox) -> Iterator[Callable[[str], int]]:
    """Counts the sessions of a role."""
    with closing(environment.postgres.connect()) as admin:

        def count(role: str) -> int:
            with admin.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", (role,))
                return int(cursor.fetchone()[0])

        yield count


def user_of(db: ConnectionManager) -> str:
    """Return the role of a connection from the pool."""
    with db.engine.connect() as connection:
        return str(connection.execute(text("SELECT session_user")).scalar_one())


def fill(db: ConnectionManager) -> str:
    """Let the pool have all of its connections idle; return their role."""
    with ExitStack() as held:
        connections = [held.enter_context(db.engine.connect()) for _ in range(MOST_SESSIONS)]
        return str(connections[0].execute(text("SELECT session_user")).scalar_one())


def follow(db: ConnectionManager, *, urgent: bool = False) -> None:
    """Look, and wait until PostgreSQL's new version is current."""
    generation = db.health().servers[0].credentials.generation
    db.look_now(urgent=urgent)
    eventually(
        lambda: db.health().servers[0].credentials.generation == generation + 1, "the rotation is followed"
    )


def test_an_adoption_costs_no_login_at_once(
    settings: Settings, environment: Sandbox, old_sessions: Callable[[str], int]
) -> None:
    """Neither a checkout nor the background replaces a connection whose moment has not come."""
    with ConnectionManager(settings.model_copy(update=LONG)) as db:
        before = fill(db)
        environment.rotate_database("alternating-users")
        follow(db)
        for _ in range(5 * MOST_SESSIONS):
            user_of(db)

        # One was given up for the login that tried the new version.
        assert old_sessions(before) >= MOST_SESSIONS - 2
        with closing(environment.postgres.connect()) as admin, admin.cursor() as cursor:
            cursor.execute("SELECT usename FROM pg_stat_activity WHERE usename LIKE 'ledger_app%'")
            assert len(cursor.fetchall()) <= MOST_SESSIONS


def test_a_new_connection_uses_what_is_current(settings: Settings, environment: Sandbox) -> None:
    """The spread is about connections that are there, not about logins."""
    with ConnectionManager(settings.model_copy(update=LONG)) as db:
        before = fill(db)
        environment.rotate_database("alternating-users")
        follow(db)
        db.engine.dispose()

        assert user_of(db) != before


@pytest.mark.parametrize("busy", [True, False])
def test_all_of_it_is_renewed_when_the_spread_is_over(
    settings: Settings, environment: Sandbox, old_sessions: Callable[[str], int], *, busy: bool
) -> None:
    """Used or idle, no session of the retired role is left, and the pool is as full as before."""
    with ConnectionManager(settings.model_copy(update={"renewal_spread_seconds": 1.5})) as db:
        before = fill(db)
        environment.rotate_database("alternating-users")
        follow(db)

        def none_left() -> bool:
            if busy:
                user_of(db)
            return old_sessions(before) == 0

        eventually(none_left, "the old sessions are gone")
        eventually(lambda: db.health().servers[0].pools[0].idle == MOST_SESSIONS, "as many are idle")


@pytest.mark.parametrize("adopted", [True, False])
def test_a_leak_is_answered_at_once(
    settings: Settings, environment: Sandbox, old_sessions: Callable[[str], int], *, adopted: bool
) -> None:
    """Whether the new version is to be found yet or is in use already, old sessions end now."""
    with ConnectionManager(settings.model_copy(update=LONG)) as db:
        before = fill(db)
        environment.rotate_database("alternating-users")
        if adopted:
            follow(db)
            db.look_now(urgent=True)
        else:
            follow(db, urgent=True)

        eventually(lambda: old_sessions(before) == 0, "the old sessions are gone")


@pytest.mark.parametrize("async_driver", ["asyncpg", "psycopg"])
async def test_an_event_loop_is_no_exception(
    settings: Settings, environment: Sandbox, old_sessions: Callable[[str], int], async_driver: str
) -> None:
    """Spread when it is ordinary, at once when it is urgent, on each driver."""
    changed = {**LONG, "async_database_driver": async_driver}
    async with ConnectionManager(settings.model_copy(update=changed)) as db:

        async def user() -> str:
            async with db.async_engine.connect() as connection:
                await asyncio.sleep(0.1)
                return str((await connection.execute(text("SELECT session_user"))).scalar_one())

        before = (await asyncio.gather(*[user() for _ in range(MOST_SESSIONS)]))[0]
        environment.rotate_database("alternating-users")
        await asyncio.to_thread(follow, db)
        await asyncio.gather(*[user() for _ in range(MOST_SESSIONS)])
        assert old_sessions(before) >= MOST_SESSIONS - 2

        db.look_now(urgent=True)
        await asyncio.to_thread(eventually, lambda: old_sessions(before) == 0, "the old sessions are gone")


def test_redis_is_no_exception(settings: Settings, environment: Sandbox) -> None:
    """Its connections live on for their part of the spread, and are replaced at once when it is urgent."""
    with ConnectionManager(settings.model_copy(update=LONG)) as db:
        connection = int(db.redis.client_id())
        version = environment.rotate_redis()
        db.look_now()
        eventually(lambda: db.health().servers[1].credentials.version == version, "the rotation is followed")
        assert int(db.redis.client_id()) == connection

        db.look_now(urgent=True)

        assert int(db.redis.client_id()) != connection


def test_announcements_are_followed_within_their_spread(
    settings: Settings, environment: Sandbox, old_sessions: Callable[[str], int]
) -> None:
    """Each process looks at a moment of its own; an urgent message is followed at once, to the end."""
    changed = {"announcement_spread_seconds": 600.0, **LONG}
    with listening(settings.model_copy(update=changed), environment) as db:

        def announce(version: str, *, urgent: bool) -> None:
            announcement = Announcement(environment.database_secret_id, version, urgent=urgent)
            with closing(environment.redis.connect()) as admin:
                admin.publish(DEFAULT_CHANNEL, announcement.to_json())

        before = fill(db)
        version = environment.rotate_database("alternating-users")
        announce(version, urgent=False)
        time.sleep(0.3)
        assert db.health().servers[0].credentials.version != version

        announce(version, urgent=True)
        eventually(lambda: old_sessions(before) == 0, "the old sessions are gone")
        assert db.health().servers[0].credentials.version == version
