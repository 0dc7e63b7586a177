"""
Who comes next, and what may the next version of a PostgreSQL secret differ in?

Who may write AWSPENDING must not be able to send a login, or a change, to another server or another role.
"""

from typing import Final

from ledger_db.answers.secret import Secret, SecretProblem

_LONGEST_NAME_BYTES: Final = 63
_CLONE_SUFFIX: Final = "_clone"


def clone_of(username: str) -> str:
    """Return the other one of ``user`` and ``user_clone``."""
    original = username.removesuffix(_CLONE_SUFFIX)
    return f"{original}{_CLONE_SUFFIX}" if original == username else original


def partner(current: Secret) -> str:
    """
    Return the other role of the pair in ``users``.

    Raises:
        SecretProblem: There is no such pair.
    """
    users = current.fields.get("users")
    if not isinstance(users, list) or len(users) != 2 or not all(isinstance(user, str) for user in users):
        users = []
    others = [user for user in users if user and user != current.username]
    if len(others) != 1:
        raise SecretProblem(
            f"field 'users' of secret {current.name!r} has to list two roles, the one in 'username' and "
            "another; or choose 'postgres-alternating-clone', as AWS's own function does it, or "
            "'postgres-single' in the field 'strategy'"
        )
    partner: str = others[0]
    return partner


def check_same_server(current: Secret, pending: Secret) -> None:
    """
    Insist on the same host and port.

    Raises:
        SecretProblem: Names the field.
    """
    check_same(current, pending, "host")
    if current.port("PostgreSQL") != pending.port("PostgreSQL"):
        raise SecretProblem("the 'port' in AWSPENDING is not that in AWSCURRENT")


def check_same(current: Secret, pending: Secret, name: str) -> None:
    """
    Insist on the same content of the field *name*.

    Raises:
        SecretProblem: Names the field.
    """
    if current.fields.get(name) != pending.fields.get(name):
        raise SecretProblem(f"the {name!r} in AWSPENDING is not that in AWSCURRENT")


def check_name(name: str) -> None:
    """
    Insist on a role name that PostgreSQL takes as it is.

    Raises:
        SecretProblem: It is too long.
    """
    # Bytes: PostgreSQL cuts a longer name off, silently, and would change the password of another role.
    if len(name.encode()) > _LONGEST_NAME_BYTES:
        raise SecretProblem(f"the role name {name!r} has more than {_LONGEST_NAME_BYTES} bytes")


def check_statement(secret: Secret) -> str | None:
    """
    Return the SQL that an application does first, from the field ``check``; None if the secret has none.

    Raises:
        SecretProblem: It is no text, or none that a server takes.
    """
    if secret.fields.get("check") is None:
        return None
    expected = "a statement of SQL, such as 'SELECT 1 FROM orders LIMIT 1'"
    statement = secret.text("check", expected=expected, trimmed=False)
    if not statement.strip():
        raise secret.problem("check", expected)
    return statement
