"""
Are the two roles of a pair alike?

An application that was fine as one of them must be fine as the other.  What an administrator gave to one by
hand (a setting, a membership, a limit, an expiry) is a failure that waits for the next rotation.  The role in
use is the model: everything that works, works with it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psycopg2
from psycopg2 import sql

from ledger_db.rotation.postgres_rights import Difference

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
_USER: Final = "$user"
_OPTIONS_SINCE: Final = 160000
_ELEMENT: Final = re.compile(r'"((?:[^"]|"")*)"|([^\s,"]+)')


_OF_ROLE: Final = """
SELECT oid, rolconnlimit, rolvaliduntil::text, to_regnamespace(quote_ident(rolname)) IS NOT NULL, {columns}
FROM pg_catalog.pg_roles WHERE rolname = %s
"""
_OF_MEMBERSHIPS: Final = """
WITH RECURSIVE reached AS (
    SELECT roleid FROM pg_catalog.pg_auth_members WHERE member = %(oid)s
    UNION SELECT further.roleid FROM pg_catalog.pg_auth_members AS further
        JOIN reached ON further.member = reached.roleid
)
SELECT rolname, bool_or(member = %(oid)s), {most} FROM reached
JOIN pg_catalog.pg_roles AS granted ON granted.oid = reached.roleid
LEFT JOIN pg_catalog.pg_auth_members AS own ON own.roleid = reached.roleid AND member = %(oid)s
GROUP BY rolname
"""

_ATTRIBUTES: Final = {
    "rolcanlogin": "LOGIN",
    "rolinherit": "INHERIT",
    "rolcreatedb": "CREATEDB",
    "rolbypassrls": "BYPASSRLS",
}
"""What is made equal in both directions: a role that sees more rows than the one before is no better."""

_POWERS: Final = {"rolsuper": "SUPERUSER", "rolcreaterole": "CREATEROLE", "rolreplication": "REPLICATION"}
"""What no rotation at night gives to a role, nor takes from it."""

_OPTIONS: Final = ("ADMIN", "INHERIT", "SET")


@dataclass(frozen=True, slots=True)
class _Role:
    """
    What has to be equal in two roles.

    Attributes:
        attributes: By the names of the catalogue: what it is, and what it may.

        limit: CONNECTION LIMIT; -1 for none.

        expires: VALID UNTIL; None for never.

        memberships: Roles that it is a member of, each with the options of that.

        reaches: Roles that it is a member of by whichever way.

        settings: ALTER ROLE ... [IN DATABASE ...] SET; database ("" for all) and name to value.

        schema: Whether there is one of its name, which "$user" in a search path leads to.
    """

    attributes: Mapping[str, bool]
    limit: int
    expires: str | None
    memberships: Mapping[str, tuple[bool, ...]]
    reaches: frozenset[str]
    settings: Mapping[tuple[str, str], str]
    schema: bool


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


def differences(cursor: "Cursor", *, model: str, other: str) -> list[Difference]:
    """Return in what *other* differs from *model*, of all that is known of roles themselves."""
    wanted, found = _read(cursor, model), _read(cursor, other)
    name = sql.Identifier(other)
    return [
        *_attributes(wanted, found, other, name),
        *_memberships(wanted, found, model=model, other=other),
        *_settings(wanted, found, other, name),
        *_schemas(wanted, found, model=model, other=other),
    ]


def _attributes(wanted: _Role, found: _Role, other: str, name: sql.Identifier) -> list[Difference]:
    differences = []
    alter = sql.SQL("ALTER ROLE {} ").format(name)
    for column, word in {**_ATTRIBUTES, **_POWERS}.items():
        if found.attributes[column] != wanted.attributes[column]:
            told = word if wanted.attributes[column] else f"NO{word}"
            statement = alter + sql.SQL(told) if column in _ATTRIBUTES else None
            is_less = wanted.attributes[column] or column in _ATTRIBUTES
            differences.append(Difference(f"{other} has not {told}", statement, is_grave=is_less))
    if found.limit != wanted.limit:
        statement = alter + sql.SQL("CONNECTION LIMIT {}").format(sql.Literal(wanted.limit))
        differences.append(
            Difference(f"{other} has CONNECTION LIMIT {found.limit}, not {wanted.limit}", statement)
        )
    if found.expires != wanted.expires:
        statement = alter + sql.SQL("VALID UNTIL {}").format(sql.Literal(wanted.expires or "infinity"))
        differences.append(Difference(f"{other} has another VALID UNTIL", statement))
    return differences


def _memberships(wanted: _Role, found: _Role, *, model: str, other: str) -> list[Difference]:
    differences = []
    for role, options in sorted(wanted.memberships.items()):
        if role == other or found.memberships.get(role) == options:
            continue
        if role not in found.reaches:
            differences.append(Difference(f"{other} is no member of {role}", _grant(role, other, options)))
        elif role in found.memberships and not _covers(found.memberships[role], options):
            words = f"{other} is a member of {role} with other options"
            differences.append(Difference(words, _grant(role, other, options)))
    # Taking rights away is nothing for a rotation at night.
    for role in sorted(found.memberships.keys() - wanted.reaches - {model}):
        words = f"{other} is a member of {role}, and the role in use is not"
        differences.append(Difference(words, is_grave=False))
    return differences


def _covers(found: tuple[bool, ...], wanted: tuple[bool, ...]) -> bool:
    return all(has or not needs for has, needs in zip(found, wanted, strict=True))


def _grant(role: str, other: str, options: tuple[bool, ...]) -> sql.Composable:
    grant = sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), sql.Identifier(other))
    if len(options) == 1:
        return grant + sql.SQL(" WITH ADMIN OPTION" if options[0] else "")
    told = (f"{word} {'TRUE' if has else 'FALSE'}" for word, has in zip(_OPTIONS, options, strict=True))
    return grant + sql.SQL(" WITH ") + sql.SQL(", ".join(told))


def _schemas(wanted: _Role, found: _Role, *, model: str, other: str) -> list[Difference]:
    # Who acts as another role looks in that one's schema.
    acts = any(name == "role" for _, name in wanted.settings)
    path = wanted.settings.get(("", "search_path"), _USER)
    if wanted.schema == found.schema or acts or _USER not in path:
        return []
    owner = model if wanted.schema else other
    words = (
        f'the search path of {owner} leads to schema {owner}, by "$user", and that of the other role does not'
    )
    return [Difference(words)]


def _settings(wanted: _Role, found: _Role, other: str, name: sql.Identifier) -> list[Difference]:
    differences = []
    for key in sorted(wanted.settings.keys() | found.settings.keys()):
        if wanted.settings.get(key) == found.settings.get(key):
            continue
        database, setting = key
        where = sql.SQL(" IN DATABASE {}").format(sql.Identifier(database)) if database else sql.SQL("")
        # The value of a setting of one's own (app.key) may be a secret: only its name is ever told.
        differences.append(
            Difference(
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
    columns = [*_ATTRIBUTES, *_POWERS]
    cursor.execute(_OF_ROLE.format(columns=", ".join(columns)), (role,))
    row = cursor.fetchone()
    if row is None:
        # Seen a moment ago in this transaction, so it was dropped in between.
        raise psycopg2.errors.UndefinedObject(f"role {role} is gone")
    oid, limit, expires, schema, *attributes = row
    memberships, reaches = _read_memberships(cursor, oid)
    return _Role(
        attributes=dict(zip(columns, attributes, strict=True)),
        limit=limit,
        # "infinity" and nothing mean the same, and which of them is there depends on who made the role.
        expires=None if expires == "infinity" else expires,
        memberships=memberships,
        reaches=reaches,
        settings=_read_settings(cursor, oid),
        schema=schema,
    )


def _read_memberships(cursor: "Cursor", oid: int) -> tuple[dict[str, tuple[bool, ...]], frozenset[str]]:
    # The same may be granted by several, and each with options of its own; the most of them counts.
    kinds = _OPTIONS if cursor.connection.server_version >= _OPTIONS_SINCE else _OPTIONS[:1]
    most = ", ".join(f"bool_or({kind.lower()}_option)" for kind in kinds)
    cursor.execute(_OF_MEMBERSHIPS.format(most=most), {"oid": oid})
    rows = cursor.fetchall()
    return (
        {name: tuple(options) for name, is_direct, *options in rows if is_direct},
        frozenset(name for name, *_ in rows),
    )


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
