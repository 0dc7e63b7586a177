"""
One secret in one process: read once and watched once, whoever logs in with it.

Programs make engines as they like: one for their life, one for each task, one more for their migrations.
Those of one secret have one provider and one watcher, so that the tenth costs nothing; and nothing has to be
closed, since a program that knows only a URL does not know of us.

    first login      the secret is read, within the time of a start, and watched from then on
    last one left    watching ends a while later; what logs in after that goes on with it
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar
from weakref import WeakValueDictionary

from ledger_db.background import async_in_thread, fill
from ledger_db.connections.startup import check
from ledger_db.credentials.provider import CredentialProvider
from ledger_db.credentials.watcher import CredentialWatcher
from ledger_db.errors import ConfigurationError
from ledger_db.forking import at_fork
from ledger_db.manager.assembly import postgres_server, redis_provider
from ledger_db.settings import Settings

if TYPE_CHECKING:
    from ledger_db.connections.postgres_server import PostgresServer

# A program that makes an engine for each task does not read the secret, and start a thread, for each.
LINGER_SECONDS: Final = 10.0
# What leads to another Secrets Manager, or to the same as somebody else.
_OF_AWS: Final = (
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SECRETS_MANAGER", "AWS_PROFILE", "AWS_DEFAULT_PROFILE"),
    *("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID"),
)


class Watched(Protocol):
    """What follows the rotations of a secret."""

    @property
    def provider(self) -> CredentialProvider:
        """Its credentials."""
        ...

    def watch(self) -> None:
        """Follow them from now on."""
        ...

    def rest(self) -> None:
        """Follow them no more, until `watch`."""
        ...

    def look_now(self) -> None:
        """Look now."""
        ...


T = TypeVar("T")
W = TypeVar("W", bound=Watched)


class Shared(Generic[W]):
    """
    What all have in common who log in with one secret.

    Args:
        watched: Reads the secret and follows it.

        startup_timeout_seconds: How long the first login may take to read it.

        linger_seconds: How long it is watched after the last one has left.
    """

    def __init__(self, watched: W, *, startup_timeout_seconds: float, linger_seconds: float) -> None:
        self.watched = watched
        self._startup_timeout_seconds = startup_timeout_seconds
        self._linger_seconds = linger_seconds
        self._users: set[object] = set()
        self._is_watching = False
        self._is_leaving = False
        # Guards the start and the end of watching, which must not overlap; an end takes up to two seconds, so
        # nobody waits for it on an event loop.
        self._changing = threading.Lock()
        # Guards the exchange of the read under way, so that all who come meanwhile wait for one.
        self._joining = threading.Lock()
        self._reading: Future[None] | None = None
        at_fork(in_child=self._after_fork)

    @property
    def provider(self) -> CredentialProvider:
        """The credentials; to be asked after `use` only."""
        return self.watched.provider

    @property
    def is_ready(self) -> bool:
        """Whether `use` returns at once."""
        return self._is_watching

    def use(self, user: object) -> None:
        """
        Have current credentials, and have them watched for as long as *user* does not `leave`.

        Raises:
            LedgerDBError: The secret could not be read within the time; the next one tries again.
        """
        # Before the look, as whoever ends the watching looks in the other order.
        self._users.add(user)
        if self._is_watching:
            return
        with self._joining:
            reading, is_mine = self._reading, self._reading is None
            if reading is None:
                reading = self._reading = Future()
        if is_mine:
            fill(reading, self._begin)
        reading.result()

    async def async_use(self, user: object) -> None:
        """Same as `use`, on an event loop, which goes on meanwhile."""
        if self._is_watching:
            self.use(user)
        else:
            await async_in_thread(lambda: self.use(user), name="ledger_db-startup")

    def leave(self, user: object) -> None:
        """
        Say that *user* is gone, or idle; it may come back.

        Takes no lock: the garbage collector calls it too, at any moment.
        """
        self._users.discard(user)
        if self._users or self._is_leaving or not self._is_watching:
            return
        self._is_leaving = True
        timer = threading.Timer(self._linger_seconds, self._rest_if_unused)
        timer.name, timer.daemon = "ledger_db-leaving", True
        timer.start()

    def _begin(self) -> None:
        try:
            provider = self.provider
            is_back = bool(provider.stamp)
            check(provider.status.source, provider.load, timeout_seconds=self._startup_timeout_seconds)
            with self._changing:
                self.watched.watch()
                self._is_watching = True
            if is_back:
                # Nobody knows what has rotated meanwhile.
                self.watched.look_now()
        finally:
            # Before anybody hears how it ended: whoever comes next begins anew.
            with self._joining:
                self._reading = None

    def _rest_if_unused(self) -> None:
        self._is_leaving = False
        with self._changing:
            if not self._is_watching:
                return
            self._is_watching = False
            # Looked at after that: who has come in between saw that it was watched, and relies on it.
            if self._users:
                self._is_watching = True
            else:
                self.watched.rest()

    def _after_fork(self) -> None:
        # What watches goes on in the child by itself; who was reading or leaving is in the parent only.
        self._changing = threading.Lock()
        self._joining = threading.Lock()
        self._reading = None
        self._is_leaving = False


class Alone:
    """A provider that nobody of ours logs in with, so that there is nothing to try credentials on."""

    def __init__(self, provider: CredentialProvider) -> None:
        self.provider = provider
        self._watcher = CredentialWatcher(provider, lambda: None)

    def watch(self) -> None:
        """Follow them from now on."""
        self._watcher.start()

    def rest(self) -> None:
        """Follow them no more."""
        self._watcher.stop()

    def look_now(self) -> None:
        """Look now."""
        self._watcher.look_now()


_Key = tuple[object, Settings, tuple[str | None, ...]]


class _Known:
    """Whatever is in use in this process, by what it was made with."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[_Key, Shared[Any]] = WeakValueDictionary()
        # Guards the making, so that there is one of each; nothing is read under it.
        self._making = threading.Lock()
        at_fork(in_child=self._after_fork)

    def get(self, make: Callable[[Settings], W], settings: Settings) -> Shared[W]:
        """Return the one that *make* has made of *settings*; it does if there is none."""
        key = make, settings, tuple(map(os.environ.get, _OF_AWS))
        with self._making:
            found = self._known.get(key)
            if found is None:
                found = self._known[key] = Shared(
                    make(settings),
                    startup_timeout_seconds=settings.startup_timeout_seconds,
                    linger_seconds=LINGER_SECONDS,
                )
            return found

    def _after_fork(self) -> None:
        self._making = threading.Lock()


def shared_database(settings: Settings) -> Shared["PostgresServer"]:
    """
    Return what belongs to the PostgreSQL credentials that *settings* name; nothing is read yet.

    Raises:
        ConfigurationError: They name none.
    """
    return _known.get(_database, settings)


def shared_redis(settings: Settings) -> Shared[Alone]:
    """Same as `shared_database`, for Redis."""
    return _known.get(_redis, settings)


def _database(settings: Settings) -> "PostgresServer":
    return _named(postgres_server(settings), "PostgreSQL", "LEDGER_DB_DATABASE_SECRET_ID")


def _redis(settings: Settings) -> Alone:
    return Alone(_named(redis_provider(settings), "Redis", "LEDGER_DB_REDIS_SECRET_ID"))


def _named(found: T | None, name: str, variable: str) -> T:
    if found is None:
        raise ConfigurationError(f"no secret is named for {name}; say secret_id, or set {variable}")
    return found


_known = _Known()
