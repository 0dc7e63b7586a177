"""
What does PostgreSQL store instead of a password?

``ALTER ROLE ... PASSWORD 'SCRAM-SHA-256$...'`` sets a verifier that was computed here.  The password itself
never travels, so it is in no server log (``log_statement``), in no pg_stat_statements, and of no use to who
listens on the way: nobody logs in with a verifier.
"""

import base64
import hashlib
import hmac
import secrets
import stringprep
import unicodedata

ITERATIONS = 4096
"""PostgreSQL's own number.  More slows every login of every service; 190 random bits need no stretching."""

MARK = "SCRAM-SHA-256$"
"""What every verifier begins with."""

_SALT_BYTES = 16
_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,
)


def verifier(password: str, *, iterations: int = ITERATIONS, salt: bytes | None = None) -> str:
    """
    Compute what PostgreSQL stores for *password*.

    Args:
        password: Any text; clients and server treat it with SASLprep, hence so does this.

        iterations: Of PBKDF2.

        salt: For tests; random if None.
    """
    salt = secrets.token_bytes(_SALT_BYTES) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", prepared(password), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return f"{MARK}{iterations}:{_base64(salt)}${_base64(stored_key)}:{_base64(server_key)}"


def prepared(password: str) -> bytes:
    """
    Return *password* as it enters the computation: RFC 4013, or as it is where that RFC refuses it.

    PostgreSQL and libpq do the same.  Passwords that are made here are ASCII and pass unchanged; those that a
    person once put into a secret need not be.
    """
    if password.isascii():
        return password.encode()
    mapped = "".join(
        " " if stringprep.in_table_c12(sign) else sign
        for sign in password
        if not stringprep.in_table_b1(sign)
    )
    normal = unicodedata.normalize("NFKC", mapped)
    return (normal if normal and _allowed(normal) else password).encode()


def _allowed(text: str) -> bool:
    if any(prohibited(sign) for sign in text for prohibited in _PROHIBITED):
        return False
    # RFC 3454, 6: text from right to left must be so as a whole.
    if any(stringprep.in_table_d1(sign) for sign in text):
        both_ends = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
        return both_ends and not any(stringprep.in_table_d2(sign) for sign in text)
    return True


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")
