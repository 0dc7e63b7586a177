"""
What does somebody do whom PostgreSQL refuses an extension?

A PostgreSQL that comes in a wheel lacks some of contrib, and a service's first migration asks for it.  The
server says that the extension is not available, and does not know who chose the server.
"""

import re
from typing import Final

from ledger_db.answers.login_errors import sqlstate_of

_CREATE: Final = re.compile(r"\bcreate\s+extension\b", re.IGNORECASE)
_NO_FILES: Final = frozenset({"0A000", "58P01"})
_NOT_PERMITTED: Final = "42501"

_ANOTHER_SERVER: Final = (
    "this PostgreSQL has no files of that extension; where it is a sandbox's, name the folder of another "
    "one's programs in LEDGER_DB_PG_BIN: Debian's package postgresql has all of contrib, as uuid-ossp and "
    "pgcrypto (/usr/lib/postgresql/15/bin); gen_random_uuid() needs no extension"
)
_SUPERUSER: Final = (
    "only a superuser may create that extension; where this is a sandbox's server, create it first on "
    "Sandbox.postgres.connect(), and let the migration say IF NOT EXISTS"
)


def advise_on_extension(error: BaseException, statement: object) -> None:
    """
    Add to *error*, as a note, what to do if *statement* was to create an extension that is refused.

    Args:
        error: A driver's or SQLAlchemy's.

        statement: As it was sent.
    """
    if not isinstance(statement, str) or not _CREATE.search(statement):
        return
    code = sqlstate_of(error)
    if code in _NO_FILES:
        error.add_note(_ANOTHER_SERVER)
    elif code == _NOT_PERMITTED:
        error.add_note(_SUPERUSER)
