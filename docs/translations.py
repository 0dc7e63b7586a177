"""
Writes what PostgreSQL says of a login in its other languages: ``ledger_db/answers/postgres_translations.py``.

Reads the catalogues that come with a server, compiled: of Debian's package postgresql-15 they are
``/usr/share/locale/<language>/LC_MESSAGES/postgres-15.mo``.  Another server's are named on the command line:
``python -m docs.translations 'postgresql-18 of Debian' /elsewhere/locale/*/LC_MESSAGES/postgres-18.mo``.
"""

import sys
from collections.abc import Iterable
from gettext import GNUTranslations
from pathlib import Path
from typing import Final

TARGET: Final = Path(__file__).parents[1] / "ledger_db/answers/postgres_translations.py"
SOURCE: Final = "postgresql-15 15.18-0+deb12u1 of Debian"

# As they stand in PostgreSQL's source.  What names pg_hba.conf does so in every language, and needs no row.
SENTENCES: Final = (
    'password authentication failed for user "%s"',
    'PAM authentication failed for user "%s"',
    'LDAP authentication failed for user "%s"',
    'RADIUS authentication failed for user "%s"',
    'role "%s" does not exist',
    'role "%s" is not permitted to log in',
    'Peer authentication failed for user "%s"',
    'Ident authentication failed for user "%s"',
    'certificate authentication failed for user "%s"',
    'database "%s" does not exist',
    'database "%s" is not currently accepting connections',
    "permission denied for database %s",
    "the database system is starting up",
    "the database system is not yet accepting connections",
    "the database system is not accepting connections",
    "the database system is shutting down",
    "the database system is in recovery mode",
    "terminating connection due to administrator command",
    "terminating connection because of crash of another server process",
    "canceling authentication due to timeout",
    "sorry, too many clients already",
    'too many connections for role "%s"',
    'too many connections for database "%s"',
    "remaining connection slots are reserved for non-replication superuser connections",
    "remaining connection slots are reserved for roles with the %s attribute",
    'remaining connection slots are reserved for roles with privileges of the "%s" role',
)

_HEAD = '''"""
What PostgreSQL says of a login, in its other languages: by sentence, in the order of the languages' codes.

Written by docs/translations.py from the message catalogues of {source}: change
that, not this.  Copyright (c) PostgreSQL Global Development Group, under the PostgreSQL Licence.
"""

# ruff: noqa: E501, RUF001

from typing import Final

TRANSLATIONS: Final[dict[str, tuple[str, ...]]] = {{
'''


def installed() -> list[Path]:
    """Return the catalogues of Debian's package; none where it is not installed."""
    return sorted(Path("/usr/share/locale").glob("*/LC_MESSAGES/postgres-15.mo"))


def module_of(catalogues: Iterable[Path], *, source: str = SOURCE) -> str:
    """Return the module that says what *catalogues* say."""
    known = [_catalogue(path) for path in catalogues]
    lines = [_HEAD.format(source=source)]
    for sentence in SENTENCES:
        said = dict.fromkeys(_in_one_line(each.gettext(sentence)) for each in known)
        said.pop(sentence, None)
        if said:
            lines += [
                f"    {_quoted(sentence)}: (\n",
                *(f"        {_quoted(each)},\n" for each in said),
                "    ),\n",
            ]
    return "".join([*lines, "}\n"])


def _catalogue(path: Path) -> GNUTranslations:
    with path.open("rb") as file:
        return GNUTranslations(file)


def _in_one_line(words: str) -> str:
    # Also where a language keeps its quotation marks together with a space that never breaks.
    return " ".join(words.split())


def _quoted(words: str) -> str:
    # As the formatter would: whichever quotation marks need fewer backslashes.
    mark = "'" if words.count('"') > words.count("'") else '"'
    escaped = words.replace("\\", "\\\\").replace(mark, f"\\{mark}")
    return f"{mark}{escaped}{mark}"


def main(arguments: list[str]) -> None:
    """Write the module, from the catalogues that *arguments* name after their source, or from Debian's."""
    source, *named = arguments or [SOURCE]
    TARGET.write_text(module_of(map(Path, named) if named else installed(), source=source), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
