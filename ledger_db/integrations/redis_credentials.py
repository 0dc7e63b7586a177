"""
An ordinary redis-py credential provider, for clients that are somebody else's.

redis-py asks it for each new connection, and tells it of no refusal.  So each login has the watcher look at
the secret too, if the last look is a while ago: without that a client that logs in often would have a
password of two rotations ago for as long as an interval.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from weakref import finalize

from redis import exceptions
from redis.credentials import CredentialProvider

from ledger_db.errors import LedgerDBError
from ledger_db.integrations.shared import shared_redis
from ledger_db.settings import Settings

_LOOK_EVERY_SECONDS: Final = 2.0


def redis_credentials(secret_id: str | None = None, **settings: Any) -> CredentialProvider:
    """
    Return a provider for ``redis.Redis(credential_provider=...)`` and every client that is made of one.

    The address, TLS and the number of the database stay the client's own.  A login uses what the last look
    at the secret has found, and has it looked at again, so that one two seconds later uses what is current;
    until the next rotation the server accepts the password before it as well.  Sessions that are open go on.
    Only ``db.redis`` replaces those, looks at AWSPENDING, and follows a secret to another server.

    Args:
        secret_id: Name or ARN; ``LEDGER_DB_REDIS_SECRET_ID`` if None.

        settings: Others of `Settings`, such as ``refresh_interval_seconds``.

    Raises:
        ConfigurationError: No secret is named, or a setting is wrong.
    """
    return _RedisCredentials(secret_id, settings)


class _RedisCredentials(CredentialProvider):
    """The provider; what it raises is redis-py's, which programs catch."""

    def __init__(
        self, secret_id: str | None, settings: dict[str, Any], *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._made_with = secret_id, settings
        named = {} if secret_id is None else {"redis_secret_id": secret_id}
        self._shared = shared_redis(Settings(**settings, **named))
        self._now = now
        self._looked_at = now()
        # Guards the moment of the last look: of a crowd that logs in, one has it done.
        self._looking = threading.Lock()
        # Not this object, which would then never be forgotten.
        self._user = object()
        finalize(self, self._shared.leave, self._user).atexit = False

    def __reduce__(self) -> tuple[Any, ...]:
        # Workers that are spawned are sent a client's arguments.
        return _again, self._made_with

    def get_credentials(self) -> tuple[str, str]:
        """Return user and password."""
        with _as_redis():
            self._shared.use(self._user)
            return self._current()

    async def get_credentials_async(self) -> tuple[str, str]:
        """Same as `get_credentials`, on an event loop."""
        with _as_redis():
            await self._shared.async_use(self._user)
            return self._current()

    def _current(self) -> tuple[str, str]:
        with self._looking:
            is_due = self._now() - self._looked_at > _LOOK_EVERY_SECONDS
            if is_due:
                self._looked_at = self._now()
        if is_due:
            self._shared.watched.look_now()
        # One snapshot: name and password belong together.
        current = self._shared.provider.current
        return current.username, current.password


def _again(secret_id: str | None, settings: dict[str, Any]) -> CredentialProvider:
    return redis_credentials(secret_id, **settings)


@contextmanager
def _as_redis() -> Iterator[None]:
    try:
        yield
    except LedgerDBError as error:
        raise exceptions.ConnectionError(str(error)) from error
