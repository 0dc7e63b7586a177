"""`lent` on an event loop: in a file of its own, as SQLAlchemy's asyncio half is not everybody's."""

import asyncio
from typing import TYPE_CHECKING, Final, cast

from sqlalchemy.exc import IllegalStateChangeError
from sqlalchemy.ext.asyncio import AsyncSession

if TYPE_CHECKING:
    from ledger_db.transactions.lent import LentSession

_LOOK_AGAIN_SECONDS: Final = 0.01


class AsyncLentSession(AsyncSession):
    """An ordinary AsyncSession over a `LentSession`."""

    async def __aexit__(self, type_: object, value: object, traceback: object) -> None:
        if type_ is not None:
            # As the synchronous twin, which SQLAlchemy only has closed, without a word about the error.
            cast("LentSession", self.sync_session).promised = False
        await super().__aexit__(type_, value, traceback)

    async def close(self) -> None:
        """Close it; and its connection for good, if a task that nobody waits for is about to get that."""
        try:
            await super().close()
        except IllegalStateChangeError:
            if cast("LentSession", self.sync_session).place is None:
                raise
            # It would keep the connection, in a transaction, for as long as somebody has the session.
            await self._take_away()
            raise

    async def _take_away(self) -> None:
        while True:
            try:
                await self.invalidate()
            except IllegalStateChangeError:
                # That is bounded: a place, the pool and the login have time-outs.
                await asyncio.sleep(_LOOK_AGAIN_SECONDS)
            else:
                return
