"""
Are the two roles of a pair alike?

An application that was fine as one of them must be fine as the other.  What an administrator gave to one by
hand (a setting, a membership, a limit, an expiry) is a failure that waits for the next rotation.  The role in
use is the model: everything that works, works with it.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psycopg2
from psycopg2 import sql

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812 - it is a class

# Settings that hold a list, whose elements PostgreSQL quotes one by one (GUC_LIST_QUOTE in its source).
_LISTS: Final = frozenset(
    {
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    }
)
_ELEMENT: Final = re.compile(r'"((?:[^"]|"")*)"|([^\s,"]+)')


@dataclass(frozen=True, slots=True)
class _Role:
    """
    What has to be equal in two roles.

    Attributes:
        limit: CONNECTION LIMIT; -1 for none.

        expires: VALID UNTIL; None for never.

        memberships: Roles that it is a member of.

        settings: ALTER ROLE ... [IN DATABASE ...] SET; database ("" for all) and name to value.
    """

    can_login: bool
    inherits: bool
    limit: int
    expires: str | None
    memberships: frozenset[str]
    settings: dict[tuple[str, str], str]


@dataclass(frozen=True, slots=True)
class _Difference:
    """One difference: in words, and the statement that mends it; None where a person has to decide."""

    words: str
    statement: sql.Composable | None


def exists(cursor: "Cursor", role: str) -> bool:
    """Whether there is such a role."""
    cursor.execute("SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = %s", (role,))
    return cursor.fetchone() is not None


def has_expired(cursor: "Cursor", role: str) -> bool:
    """Whether the VALID UNTIL of *role* has passed."""
    cursor.execute(
        "SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = %s AND rolvaliduntil <= pg_catalog.now()", (role,)
    )
    return cursor.fetchone() is not None


def differences(cursor: "Cursor", *, model: str, other: str) -> tuple[str, ...]:
    """Say in which way *other* differs from *model*, a sentence each; changes nothing."""
    if not exists(cursor, other):
        return (f"role {other} does not exist",)
    return tuple(difference.words for difference in _compare(cursor, model=model, other=other))


def align(cursor: "Cursor", *, model: str, other: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """
    Make *other* like *model*, as far as the administrator may.

    Returns:
        What was mended, and what was left.
    """
    mended: list[str] = []
    left: list[str] = []
    for difference in _compare(cursor, model=model, other=other):
        done = difference.statement is not None and _permitted(cursor, difference.statement)
        (mended if done else left).append(difference.words)
    return tuple(mended), tuple(left)


def _permitted(cursor: "Cursor", statement: sql.Composable) -> bool:
    # A savepoint: what this administrator may not do, or this server does not know, must not undo the rest.
    cursor.execute("SAVEPOINT difference")
    try:
        cursor.execute(statement)
    except (psycopg2.ProgrammingError, psycopg2.DataError):
        cursor.execute("ROLLBACK TO SAVEPOINT difference")
        return False
    cursor.execute("RELEASE SAVEPOINT difference")
    return True


def _compare(cursor: "Cursor", *, model: str, other: str) -> list[_Difference]:
    wanted, found = _read(cursor, model), _read(cursor, other)
    name = sql.Identifier(other)
    return [
        *_attributes(wanted, found, other, name),
        *_memberships(wanted, found, other, name),
        *_settings(wanted, found, other, name),
    ]


def _attributes(wanted: _Role, found: _Role, other: str, name: sql.Identifier) -> list[_Difference]:
    differences = []
    alter = sql.SQL("ALTER ROLE {} ").format(name)
    if found.can_login != wanted.can_login:
        word = "LOGIN" if wanted.can_login else "NOLOGIN"
        differences.append(_Difference(f"{other} has not {word}", alter + sql.SQL(word)))
    if found.inherits != wanted.inherits:
        word = "INHERIT" if wanted.inherits else "NOINHERIT"
        differences.append(_Difference(f"{other} has not {word}", alter + sql.SQL(word)))
    if found.limit != wanted.limit:
        statement = alter + sql.SQL("CONNECTION LIMIT {}").format(sql.Literal(wanted.limit))
        differences.append(
            _Difference(f"{other} has CONNECTION LIMIT {found.limit}, not {wanted.limit}", statement)
        )
    if found.expires != wanted.expires:
        statement = alter + sql.SQL("VALID UNTIL {}").format(sql.Literal(wanted.expires or "infinity"))
        differences.append(_Difference(f"{other} has another VALID UNTIL", statement))
    return differences


def _memberships(wanted: _Role, found: _Role, other: str, name: sql.Identifier) -> list[_Difference]:
    missing = [
        _Difference(
            f"{other} is no member of {role}", sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), name)
        )
        for role in sorted(wanted.memberships - found.memberships - {other})
    ]
    # Taking rights away is nothing for a rotation at night.
    extra = [
        _Difference(f"{other} is a member of {role}, and the role in use is not", None)
        for role in sorted(found.memberships - wanted.memberships)
    ]
    return missing + extra


def _settings(wanted: _Role, found: _Role, other: str, name: sql.Identifier) -> list[_Difference]:
    differences = []
    for key in sorted(wanted.settings.keys() | found.settings.keys()):
        if wanted.settings.get(key) == found.settings.get(key):
            continue
        database, setting = key
        where = sql.SQL(" IN DATABASE {}").format(sql.Identifier(database)) if database else sql.SQL("")
        # The value of a setting of one's own (app.key) may be a secret: only its name is ever told.
        differences.append(
            _Difference(
                f"{other} has another {setting}{f' in database {database}' if database else ''}",
                sql.SQL("ALTER ROLE {}{} {}").format(
                    name, where, _assignment(setting, wanted.settings.get(key))
                ),
            )
        )
    return differences


def _assignment(setting: str, value: str | None) -> sql.Composable:
    name = sql.SQL(".").join(sql.Identifier(part) for part in setting.split("."))
    if value is None:
        return sql.SQL("RESET {}").format(name)
    elements = [value]
    if setting in _LISTS:
        elements = [
            quoted.replace('""', '"') if quoted or not plain else plain
            for quoted, plain in _ELEMENT.findall(value)
        ]
    literals = sql.SQL(", ").join(sql.Literal(element) for element in elements or [""])
    return sql.SQL("SET {} TO {}").format(name, literals)


def _read(cursor: "Cursor", role: str) -> _Role:
    cursor.execute(
        "SELECT oid, rolcanlogin, rolinherit, rolconnlimit, rolvaliduntil::text"
        " FROM pg_catalog.pg_roles WHERE rolname = %s",
        (role,),
    )
    row = cursor.fetchone()
    if row is None:
        # Seen a moment ago in this transaction, so it was dropped in between.
        raise psycopg2.errors.UndefinedObject(f"role {role} is gone")
    oid, can_login, inherits, limit, expires = row
    return _Role(
        can_login=can_login,
        inherits=inherits,
        limit=limit,
        # "infinity" and nothing mean the same, and which of them is there depends on who made the role.
        expires=None if expires == "infinity" else expires,
        memberships=_read_memberships(cursor, oid),
        settings=_read_settings(cursor, oid),
    )


def _read_memberships(cursor: "Cursor", oid: int) -> frozenset[str]:
    cursor.execute(
        "SELECT granted.rolname FROM pg_catalog.pg_auth_members AS membership"
        " JOIN pg_catalog.pg_roles AS granted ON granted.oid = membership.roleid"
        " WHERE membership.member = %s",
        (oid,),
    )
    return frozenset(name for (name,) in cursor.fetchall())


def _read_settings(cursor: "Cursor", oid: int) -> dict[tuple[str, str], str]:
    cursor.execute(
        "SELECT coalesce(datname, ''), unnest(setconfig) FROM pg_catalog.pg_db_role_setting"
        " LEFT JOIN pg_catalog.pg_database AS one ON one.oid = setdatabase WHERE setrole = %s",
        (oid,),
    )
    settings = {}
    for database, assignment in cursor.fetchall():
        name, _, value = assignment.partition("=")
        settings[database, name] = value
    return settings
