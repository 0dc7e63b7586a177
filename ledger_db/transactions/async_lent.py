"""`lent` on an event loop: in a file of its own, as SQLAlchemy's asyncio half is not everybody's."""

from typing import TYPE_CHECKING, cast

from sqlalchemy.ext.asyncio import AsyncSession

if TYPE_CHECKING:
    from ledger_db.transactions.lent import LentSession


class AsyncLentSession(AsyncSession):
    """An ordinary AsyncSession over a `LentSession`."""

    async def __aexit__(self, type_: object, value: object, traceback: object) -> None:
        if type_ is not None:
            # As the synchronous twin, which SQLAlchemy only has closed, without a word about the error.
            cast("LentSession", self.sync_session).promised = False
        await super().__aexit__(type_, value, traceback)
