"""How little may a user of Redis be allowed, for a service to work with it?"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ledger_db import ConfigurationError, ConnectionManager, Settings
from ledger_db.manager.assembly import redis_server
from ledger_db.sandbox import Sandbox
from ledger_db.signals.subscription import Subscription
from tests.support.events import event_of, fields_of
from tests.support.redis_clients import KINDS, redis_client
from tests.support.redis_world import redis_world
from tests.support.waiting import eventually

LEAST = "-@all +@read +@write ~* resetchannels"


@contextmanager
def allowed(box: Sandbox, rights: str) -> Iterator[Settings]:
    """Make a user with *rights*, and return the settings that lead to it."""
    with redis_world(box, rights=rights) as world:
        yield Settings(database_secret_id=None, redis_secret_id=world.secret_id, startup_timeout_seconds=30)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rights", [LEAST, "+@all -ping ~* &*", "+@all -@connection ~* &*"])
def test_a_user_who_may_do_little_is_enough(environment: Sandbox, kind: str, rights: str) -> None:
    """It need not ask for a sign of life or say who it is; the start, a command and health are as ever."""
    with allowed(environment, rights) as settings, redis_client(kind, settings) as client:
        client.do(lambda client: client.set("k", "v"))

        assert client.do(lambda client: client.get("k")) == b"v"
        assert client.db.probe().ok
        assert client.db.health().ok


def test_a_numbered_database_needs_one_more(environment: Sandbox) -> None:
    """Without SELECT the start says that a permission is missing; with it all is well."""
    with allowed(environment, LEAST) as settings:
        numbered = settings.model_copy(update={"redis_db": 1})
        with pytest.raises(ConfigurationError, match="'select' command"), ConnectionManager(numbered):
            pass
    with allowed(environment, f"{LEAST} +select") as settings:
        numbered = settings.model_copy(update={"redis_db": 1})
        with redis_client("threads", numbered) as client:
            assert client.do(lambda client: client.get("none")) is None


def test_a_user_who_may_not_subscribe_is_told_once(
    environment: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """The service works without announcements, and one warning names the command."""
    caplog.set_level(logging.WARNING, logger="ledger_db.signals")
    with allowed(environment, LEAST) as settings, ConnectionManager(settings):
        eventually(lambda: len(caplog.records) > 0, "it is told")

    assert [event_of(record) for record in caplog.records] == ["signals.lost"]
    assert "'subscribe' command" in str(fields_of(caplog.records[0])["cause"])


def test_a_listener_who_may_not_ask_for_a_sign_of_life_has_one(environment: Sandbox) -> None:
    """That the server refuses to answer shows that it is there; announcements are heard as before."""
    with allowed(environment, f"{LEAST} +subscribe &channel") as settings:
        server = redis_server(settings)
        assert server is not None
        server.provider.load()
        subscription = Subscription(server.new_connection(), "channel")
        subscription.open()
        try:
            subscription.ping()
            frame = subscription.read(2)
        finally:
            subscription.close()
            server.close()

    assert frame is not None
    assert frame[0] == b"pong"
