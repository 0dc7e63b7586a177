"""
What does the server record of one role of a pair, and not of the other?

``pg_shdepend`` has an index by role: it leads to what a role owns, was granted, or is named in, however many
objects there are beside these.  So this is one query, of one database: of the others nobody who is not in
there can say more than how many entries there are.

A right that the other role has anyhow, through a role that it is a member of or as everybody, is the same
right.  What one owns, nobody else owns: the other one has to be a member of the owner.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from psycopg2 import sql

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812 - it is a class


@dataclass(frozen=True, slots=True)
class Difference:
    """
    One difference between the roles of a pair.

    Attributes:
        words: For a person; never the value of a setting.

        statement: Mends it; None where a person has to decide.

        is_grave: Whether an application that worked as one role may fail as the other.
    """

    words: str
    statement: sql.Composable | None = None
    is_grave: bool = True


# What can be granted: the catalogue that it is noted under, its ACL, and how GRANT names a row of it.
_GRANTED: Final = (
    ("pg_class", "relacl", "CASE relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || it.oid::regclass"),
    ("pg_proc", "proacl", "%(routine)s || it.oid::regprocedure"),
    ("pg_namespace", "nspacl", "'SCHEMA ' || quote_ident(nspname)"),
    ("pg_type", "typacl", "'TYPE ' || it.oid::regtype"),
    ("pg_language", "lanacl", "'LANGUAGE ' || quote_ident(lanname)"),
    ("pg_foreign_server", "srvacl", "'FOREIGN SERVER ' || quote_ident(srvname)"),
    ("pg_foreign_data_wrapper", "fdwacl", "'FOREIGN DATA WRAPPER ' || quote_ident(fdwname)"),
    ("pg_largeobject", "lomacl", "'LARGE OBJECT ' || it.oid"),
    ("pg_database", "datacl", "'DATABASE ' || quote_ident(datname)"),
    ("pg_tablespace", "spcacl", "'TABLESPACE ' || quote_ident(spcname)"),
)
_ROWS_OF: Final = {"pg_largeobject": "pg_largeobject_metadata"}
# Since PostgreSQL 15.
_GRANTED_PARAMETERS: Final = ("pg_parameter_acl", "paracl", "'PARAMETER ' || parname")

_BEGINNING: Final = """
WITH
model AS (SELECT oid, quote_ident(rolname) AS name FROM pg_roles WHERE rolname = %(model)s),
other AS (SELECT oid, quote_ident(rolname) AS name FROM pg_roles WHERE rolname = %(other)s),
here AS (SELECT oid FROM pg_database WHERE datname = current_database()),
noted AS (
    SELECT classid, objid, objsubid, deptype, refobjid = model.oid AS is_model FROM model, other, pg_shdepend
    WHERE refclassid = 'pg_authid'::regclass AND refobjid IN (model.oid, other.oid)
    AND dbid IN (SELECT oid FROM here UNION ALL SELECT 0)
),
granted AS (SELECT DISTINCT classid, objid, objsubid FROM noted WHERE deptype = 'a'),
-- What other sessions keep for themselves ends with them.
temporary AS (SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_(toast_)?temp_'),
-- Whose things the respective other one may use as if they were its own.
shared AS (
    SELECT true AS is_model FROM model, other WHERE pg_has_role(other.oid, model.oid, 'USAGE')
    UNION ALL SELECT false FROM model, other WHERE pg_has_role(model.oid, other.oid, 'USAGE')
),
grantable (way, target, part, acl, wider) AS (
"""

_BRANCH: Final = """
    SELECT '', {target}, '', {acl}, NULL::aclitem[] FROM granted JOIN {rows} AS it ON it.oid = objid
    WHERE classid = '{catalogue}'::regclass AND objsubid = 0
"""

_REST: Final = """
    UNION ALL
    SELECT '', 'TABLE ' || it.attrelid::regclass, ' (' || quote_ident(attname) || ')', attacl,
        -- Who may do something with a table may do it with each of its columns.
        coalesce(relacl, acldefault('r', relowner))
    FROM granted JOIN pg_attribute AS it ON attrelid = objid AND attnum = objsubid
        JOIN pg_class AS whole ON whole.oid = attrelid
    WHERE classid = 'pg_class'::regclass AND objsubid > 0
    UNION ALL
    SELECT 'ALTER DEFAULT PRIVILEGES FOR ROLE ' || quote_ident(pg_get_userbyid(defaclrole))
        || coalesce(' IN SCHEMA ' || quote_ident(nspname), '') || ' ',
        CASE defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS'
            WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END, '', defaclacl,
        NULL
    FROM granted JOIN pg_default_acl AS it ON it.oid = objid LEFT JOIN pg_namespace AS place
        ON place.oid = defaclnamespace
    -- What one of the two makes is its own; for whom else, is a matter of the presets.
    WHERE classid = 'pg_default_acl'::regclass
        AND defaclrole NOT IN (SELECT oid FROM model UNION ALL SELECT oid FROM other)
),
rights AS (
    SELECT DISTINCT way, target, part, privilege_type AS may, is_grantable AS further,
        grantee = model.oid AS is_model, acl || wider AS anyhow
    FROM model, other, grantable, aclexplode(acl) WHERE grantee IN (model.oid, other.oid)
),
apart AS (
    SELECT rights.* FROM rights, model, other WHERE NOT EXISTS (
        SELECT FROM aclexplode(anyhow) AS same
        WHERE privilege_type = may AND (same.is_grantable OR NOT further) AND CASE WHEN grantee = 0 THEN true
            ELSE pg_has_role(CASE WHEN is_model THEN other.oid ELSE model.oid END, grantee, 'USAGE') END
    )
),
-- Made by one role, for what that one makes.
preset AS (
    SELECT defaclrole = model.oid AS is_model, defaclnamespace, defaclobjtype,
        array(SELECT (CASE WHEN grantee = defaclrole THEN 'itself' WHEN grantee IN (model.oid, other.oid)
            THEN 'the other' ELSE grantee::text END, privilege_type, is_grantable)::text
            FROM aclexplode(defaclacl) ORDER BY 1) AS content
    FROM model, other, pg_default_acl WHERE defaclrole IN (model.oid, other.oid)
),
presets AS (
    SELECT defaclnamespace, defaclobjtype, content, bool_or(is_model) AS of_model
    FROM preset GROUP BY 1, 2, 3 HAVING count(*) = 1
)
SELECT CASE WHEN is_model THEN other.name ELSE model.name END || ' may not ' || may || part || ' on '
        || target || CASE WHEN further THEN ', with grant option' ELSE '' END
        || CASE WHEN way = '' THEN '' ELSE ' (' || trim(way) || ')' END,
    CASE WHEN is_model THEN way || 'GRANT ' || may || part || ' ON ' || target || ' TO ' || other.name
        || CASE WHEN further THEN ' WITH GRANT OPTION' ELSE '' END END,
    is_model
FROM apart, model, other
UNION ALL
SELECT CASE WHEN is_model THEN model.name ELSE other.name END || ' owns '
    || pg_describe_object(classid, objid, objsubid) || ', and '
    || CASE WHEN is_model THEN other.name ELSE model.name END || ' is no member of it', NULL, is_model
FROM noted, model, other
WHERE deptype = 'o' AND is_model NOT IN (SELECT is_model FROM shared)
    AND classid NOT IN ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass)
    AND NOT EXISTS (SELECT FROM pg_class WHERE classid = 'pg_class'::regclass AND oid = objid
        AND relnamespace IN (SELECT oid FROM temporary))
    AND NOT EXISTS (SELECT FROM pg_proc WHERE classid = 'pg_proc'::regclass AND oid = objid
        AND pronamespace IN (SELECT oid FROM temporary))
    AND NOT EXISTS (SELECT FROM pg_type WHERE classid = 'pg_type'::regclass AND oid = objid
        AND typnamespace IN (SELECT oid FROM temporary))
    AND NOT (classid = 'pg_namespace'::regclass AND objid IN (SELECT oid FROM temporary))
UNION ALL
SELECT pg_describe_object('pg_policy'::regclass, it.oid, 0) || ' is for '
    || CASE WHEN for_model THEN model.name ELSE other.name END || ' and not for '
    || CASE WHEN for_model THEN other.name ELSE model.name END, NULL, true
FROM model, other, (SELECT DISTINCT objid FROM noted WHERE classid = 'pg_policy'::regclass) AS named
    JOIN pg_policy AS it ON it.oid = objid,
    LATERAL (SELECT bool_or(CASE WHEN role = 0 THEN true ELSE pg_has_role(model.oid, role, 'USAGE') END)
        AS for_model, bool_or(CASE WHEN role = 0 THEN true ELSE pg_has_role(other.oid, role, 'USAGE') END)
        AS for_other FROM unnest(polroles) AS role) AS sides
WHERE for_model <> for_other
UNION ALL
SELECT model.name || ' has a user mapping on server ' || quote_ident(srvname) || ', and ' || other.name
    || ' has none', NULL, true
FROM model, other, pg_user_mappings AS it WHERE umuser = model.oid
    AND NOT EXISTS (SELECT FROM pg_user_mappings AS same WHERE same.srvid = it.srvid
        AND umuser IN (0, other.oid))
UNION ALL
SELECT 'the default privileges of ' || model.name || ' are not those of ' || other.name, NULL,
    bool_or(of_model)
FROM model, other, presets GROUP BY model.name, other.name
UNION ALL
SELECT quote_ident(datname) || ' is a database that this did not look into, where ' || model.name
    || ' is noted for ' || count(*) FILTER (WHERE is_model) || ' things that ' || other.name
    || ' is not noted for, and ' || other.name || ' for ' || count(*) FILTER (WHERE NOT is_model), NULL, false
FROM model, other, (
    SELECT dbid, refobjid = model.oid AS is_model, count(*) OVER (
        PARTITION BY dbid, classid, objid, objsubid, deptype
    ) AS times
    FROM model, other, pg_shdepend
    WHERE refclassid = 'pg_authid'::regclass AND refobjid IN (model.oid, other.oid)
) AS noted_there JOIN pg_database AS it ON it.oid = dbid
WHERE times = 1 AND it.oid NOT IN (SELECT oid FROM here)
    AND is_model NOT IN (SELECT is_model FROM shared)
GROUP BY datname, model.name, other.name
"""

_ROUTINES_SINCE: Final = 110000
_PARAMETERS_SINCE: Final = 150000


def differences(cursor: "Cursor", *, model: str, other: str) -> list[Difference]:
    """
    Return in what *other* differs from *model*, of all that belongs to them in this database.

    Args:
        cursor: In a session whose search path is ``pg_catalog``, so that names are complete.

        model: The role that is in use.

        other: The one that is to follow.
    """
    version = cursor.connection.server_version
    granted = [*_GRANTED, *[_GRANTED_PARAMETERS] * (version >= _PARAMETERS_SINCE)]
    branches = "    UNION ALL\n".join(
        _BRANCH.format(target=target, acl=acl, catalogue=catalogue, rows=_ROWS_OF.get(catalogue, catalogue))
        for catalogue, acl, target in granted
    )
    routine = "ROUTINE " if version >= _ROUTINES_SINCE else "FUNCTION "
    cursor.execute(_BEGINNING + branches + _REST, {"model": model, "other": other, "routine": routine})
    return [
        Difference(words, None if statement is None else sql.SQL(statement), is_grave=is_grave)
        for words, statement, is_grave in cursor.fetchall()
    ]
