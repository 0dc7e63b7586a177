"""
What is different about a session that was lent: another one ends it, and says who may use a connection?

Begins:   takes a place among those who may use a connection, before it asks for one.
Ends:     gives the place back: at commit, rollback or close, in whichever thread.
Closed:   by who borrowed it, before what was written is committed: remembered, as a COMMIT was promised.
Used:     after that, says what to take instead.

A session that nobody has lent is none of this.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import Connection, event, text
from sqlalchemy.exc import InvalidRequestError, SQLAlchemyError, TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, SessionTransaction, SessionTransactionOrigin

# PostgreSQL numbers a transaction when it writes for the first time, whatever the statement looked like.
_HAS_WRITTEN = text("SELECT txid_current_if_assigned() IS NOT NULL")

_OVER = (
    "this session is permanently closed: it ended with its request, before the response left, or was closed "
    "by the endpoint; what comes later (a stream, a background task) takes SessionFactoryDep or "
    "AsyncSessionFactoryDep, and opens a session of its own where it needs one"
)


class Place(Protocol):
    """
    Leave to use a connection, as a session asks for it.

    Attributes:
        taken: Whether the transaction that runs now has had it.
    """

    taken: bool

    def take(self) -> None:
        """Take it, or raise; may wait where that is allowed."""

    def end(self) -> None:
        """Note that the transaction is over, and with it the use of a connection."""

    def overdue(self) -> Exception:
        """Return what to raise if the pool had no connection in time, in spite of the place."""


class LentSession(Session):
    """
    An ordinary Session, until it is lent.

    Attributes:
        place: Where it asks before it uses a connection; None if it need not.

        promised: Whether its lender commits it.

        lost: Whether it was closed although something was promised and written.

        begun: The connection of its last transaction; None before the first statement.
    """

    place: Place | None = None
    promised: bool = False
    lost: bool = False
    begun: Connection | None = None
    _over: bool = False

    def close(self) -> None:
        """Close it, and note if that undoes what was to be committed."""
        if self.promised and self.in_transaction():
            self.lost = _has_written(self)
        super().close()
        self._over = True

    def flush(self, objects: Sequence[Any] | None = None) -> None:
        """Flush, and say whose fault it is if there is no connection for it."""
        try:
            super().flush(objects)
        except PoolTimeout as error:
            if self.place is None:
                raise
            raise self.place.overdue() from error

    def invalidate(self) -> None:
        """Close it, and its connection for good."""
        super().invalidate()
        self._over = True

    def __exit__(self, type_: object, value: object, traceback: object) -> None:
        if type_ is not None:
            self.promised = False  # it is undone because of the error, as is meant by such a block
        super().__exit__(type_, value, traceback)

    # Two private methods of SQLAlchemy's: there is no event before a connection is asked for, and none where
    # a transaction cannot begin.  If they move, tests of places and of sessions that are over fail.

    def _autobegin_t(self, *args: Any, **options: Any) -> SessionTransaction:
        if self._over and self.place is not None:
            raise InvalidRequestError(_OVER)
        begun: SessionTransaction = super()._autobegin_t(*args, **options)
        return begun

    def _connection_for_bind(self, *args: Any, **options: Any) -> Connection:
        place = self.place
        if place is None:
            return super()._connection_for_bind(*args, **options)
        try:
            if not place.taken:
                # First of all, so that one that is over does not wait to hear of it.
                self._autobegin_t()
                place.take()
            return super()._connection_for_bind(*args, **options)
        except BaseException as error:
            if not self.in_transaction():
                place.end()  # else the end of the transaction does it
            if isinstance(error, PoolTimeout):
                raise place.overdue() from error
            raise


@event.listens_for(LentSession, "after_transaction_create")
def _take_place(session: LentSession, transaction: SessionTransaction) -> None:
    # That of a flush, which asks for its connection without asking its session.
    if (
        session.place is not None
        and not session.place.taken
        and transaction.origin is SessionTransactionOrigin.SUBTRANSACTION
    ):
        session.place.take()


@event.listens_for(LentSession, "after_transaction_end")
def _give_place_back(session: LentSession, transaction: SessionTransaction) -> None:
    if session.place is not None and transaction.parent is None:
        session.place.end()


def _has_written(session: LentSession) -> bool:
    if session.new or session.deleted or any(map(session.is_modified, session.dirty)):
        return True
    connection = session.begun
    if connection is None or connection.closed or connection.dialect.name != "postgresql":
        return False
    try:
        return bool(connection.scalar(_HAS_WRITTEN))
    except SQLAlchemyError:
        return False  # it has failed already: there is nothing that could have been committed
