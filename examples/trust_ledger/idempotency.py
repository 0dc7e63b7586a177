"""
How does a repeated request get its answer without asking PostgreSQL?

Redis remembers what each idempotency key stands for.  It is a shortcut and nothing else: an entry is
remembered only after its transaction has committed, and whatever Redis forgets, PostgreSQL still knows.
"""

import json
import logging
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

# The one thing that ledger_db does not translate: what a command to Redis raises is Redis's own.
from redis.exceptions import RedisError

from examples.trust_ledger.chain import Entry
from ledger_db.errors import LedgerDBError

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger(__name__)


class Shortcut:
    """
    The memory of Redis, for one request.

    Redis that can not be used is no reason to fail: the request goes the long way, and says so.

    Attributes:
        usable: Whether Redis did its part in this request so far.
    """

    def __init__(self, redis: "Redis", *, remember_seconds: int) -> None:
        """
        Prepare the shortcut; nothing is sent yet.

        Args:
            redis: The client.

            remember_seconds: How long it works.  A key means the same for ever: after that, PostgreSQL is
                asked.
        """
        self.usable = True
        self._redis = redis
        self._remember_seconds = remember_seconds

    async def recall(self, idempotency_key: str) -> Entry | None:
        """Return the entry that *idempotency_key* stands for, as far as Redis knows."""
        try:
            remembered = await self._redis.get(_name(idempotency_key))
            return None if remembered is None else _read(remembered)
        except (RedisError, LedgerDBError, ValueError, KeyError, TypeError) as error:
            self._give_up(error)
            return None

    async def remember(self, entry: Entry) -> None:
        """Remember a committed *entry* under its key."""
        # Not tried again within one request: waiting once for a Redis that is away is enough.
        if not self.usable:
            return
        try:
            await self._redis.set(_name(entry.idempotency_key), _write(entry), ex=self._remember_seconds)
        except (RedisError, LedgerDBError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.usable = False
        log.warning("shortcut.unusable", extra={"error": type(error).__name__})


def _name(idempotency_key: str) -> str:
    return f"trust-ledger:idempotency:{idempotency_key}"


def _write(entry: Entry) -> str:
    return json.dumps(asdict(entry) | {"recorded_at": entry.recorded_at.isoformat()})


def _read(remembered: str | bytes) -> Entry:
    fields = json.loads(remembered)
    return Entry(**{**fields, "recorded_at": datetime.fromisoformat(fields["recorded_at"])})
