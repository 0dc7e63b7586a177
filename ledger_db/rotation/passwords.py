"""
What does a new password look like?

It has to survive whatever people put passwords into: a URL, a libpq connection string, JSON, a shell command,
a YAML file.  So it is made of letters, digits and the three signs that mean nothing in any of them, and
begins with a letter: a leading ``-`` is an option, a leading ``.`` a hidden file.
"""

import secrets
import string

PUNCTUATION = "-._"
"""Unreserved in URLs, plain in shells, JSON and connection strings."""

_LETTERS = string.ascii_letters
_SHORTEST = 16


def new_password(length: int = 32, *, punctuation: str = PUNCTUATION) -> str:
    """
    Make a password that nobody guesses: 32 characters are 190 bits.

    Every kind of character is in it (upper case, lower case, digit, and *punctuation* unless that is empty),
    since password rules of servers ask for that.

    Args:
        length: How many characters, 16 or more.

        punctuation: Which signs the server allows.

    Raises:
        ValueError: *length* is too short for a password that nobody sees.
    """
    if length < _SHORTEST:
        raise ValueError(f"a password of {length} characters is too short; {_SHORTEST} is the least")
    alphabet = _LETTERS + string.digits + punctuation
    kinds = [
        string.ascii_uppercase,
        string.ascii_lowercase,
        string.digits,
        *([punctuation] if punctuation else []),
    ]
    # Drawn again until every kind is there: unlike filling in what is missing, that favours no position.
    while True:
        password = secrets.choice(_LETTERS) + "".join(secrets.choice(alphabet) for _ in range(length - 1))
        if all(set(kind) & set(password) for kind in kinds):
            return password
