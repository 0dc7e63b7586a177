"""
What does a new password look like?

It has to survive whatever people put passwords into: a URL, a libpq connection string, JSON, a shell command,
a YAML file.  So it is made of letters, digits and the three signs that mean nothing in any of them, and
begins with a letter: a leading ``-`` is an option, a leading ``.`` a hidden file.

Within that, the variables of AWS's own rotation functions choose, under AWS's names:

    PASSWORD_LENGTH               16 to 128
    EXCLUDE_CHARACTERS            these are in no password
    EXCLUDE_NUMBERS, EXCLUDE_PUNCTUATION, EXCLUDE_UPPERCASE, EXCLUDE_LOWERCASE
                                  true: none of that kind
    REQUIRE_EACH_INCLUDED_TYPE    true, as if absent: some of each kind that is left
"""

import math
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from ledger_db.errors import ConfigurationError

PUNCTUATION = "-._"
"""Unreserved in URLs, plain in shells, JSON and connection strings."""

_LETTERS = string.ascii_letters
_USUAL: Final = 32
_SHORTEST: Final = 16
# ElastiCache and MemoryDB take no more, and older clients of PostgreSQL cut off after a hundred.
_LONGEST: Final = 128
# Of what is left after all exclusions; sixteen digits alone would be 53, which a verifier does not withstand.
_LEAST_BITS: Final = 80
_KINDS: Final[Mapping[str, str]] = {
    "UPPERCASE": string.ascii_uppercase,
    "LOWERCASE": string.ascii_lowercase,
    "NUMBERS": string.digits,
    "PUNCTUATION": string.punctuation,
}
# The words of AWS's functions; what is none of them is refused here, and means "no" there.
_WORDS: Final[Mapping[str, bool]] = {
    **dict.fromkeys(("true", "1", "y", "yes"), True),
    **dict.fromkeys(("false", "0", "n", "no"), False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordRules:
    """
    What an installation wants new passwords to be made of.

    Attributes:
        length: How many characters; what the server's strategy has for usual if None.

        excluded: Characters that are in none.

        each_type: Whether some of each kind has to be in it.
    """

    length: int | None = None
    excluded: frozenset[str] = frozenset()
    each_type: bool = True

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """
        Read AWS's variables.

        Raises:
            ConfigurationError: One is wrong, or too little is left; it is named.
        """
        kinds = [
            characters
            for kind, characters in _KINDS.items()
            if _is_set(environment, f"EXCLUDE_{kind}", otherwise=False)
        ]
        rules = cls(
            length=_length(environment),
            excluded=frozenset("".join((environment.get("EXCLUDE_CHARACTERS", ""), *kinds))),
            each_type=_is_set(environment, "REQUIRE_EACH_INCLUDED_TYPE", otherwise=True),
        )
        _check_strength(rules)
        return rules

    def kinds(self, punctuation: str) -> list[str]:
        """Return the kinds of characters, with *punctuation* for signs, that are left of each."""
        every = (string.ascii_uppercase, string.ascii_lowercase, string.digits, punctuation)
        left = ("".join(sign for sign in kind if sign not in self.excluded) for kind in every)
        return [kind for kind in left if kind]


def new_password(
    length: int = _USUAL,
    *,
    punctuation: str = PUNCTUATION,
    rules: PasswordRules = PasswordRules(),
) -> str:
    """
    Make a password that nobody guesses: 32 characters are 190 bits.

    Every kind of character is in it (upper case, lower case, digit, and *punctuation* unless that is empty),
    since password rules of servers ask for that.

    Args:
        length: How many characters, 16 or more, unless *rules* say.

        punctuation: Which signs the server allows.

        rules: What the installation wants.

    Raises:
        ValueError: *length* is too short for a password that nobody sees.
    """
    length = rules.length or length
    if length < _SHORTEST:
        raise ValueError(f"a password of {length} characters is too short; {_SHORTEST} is the least")
    kinds = rules.kinds(punctuation)
    alphabet = "".join(kinds)
    # Without letters a digit is the least harmful beginning.
    first = [sign for sign in alphabet if sign in _LETTERS] or [sign for sign in alphabet if sign.isdigit()]
    # Drawn again until every kind is there: unlike filling in what is missing, that favours no position.
    while True:
        password = secrets.choice(first) + "".join(secrets.choice(alphabet) for _ in range(length - 1))
        if not rules.each_type or all(set(kind) & set(password) for kind in kinds):
            return password


def _length(environment: Mapping[str, str]) -> int | None:
    text = environment.get("PASSWORD_LENGTH", "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 6 and _SHORTEST <= int(text) <= _LONGEST):
        raise ConfigurationError(
            f"PASSWORD_LENGTH is no number from {_SHORTEST} to {_LONGEST}, which every server takes; mend it"
        )
    return int(text)


def _is_set(environment: Mapping[str, str], name: str, *, otherwise: bool) -> bool:
    text = environment.get(name, "").strip().lower()
    if text and text not in _WORDS:
        raise ConfigurationError(f"{name} is none of {', '.join(_WORDS)}; mend it")
    return _WORDS.get(text, otherwise)


def _check_strength(rules: PasswordRules) -> None:
    # Judged with no signs at all: not every server takes the same.
    left = "".join(rules.kinds(""))
    length = rules.length or _USUAL
    if not left or length * math.log2(len(left)) < _LEAST_BITS:
        raise ConfigurationError(
            f"the variables EXCLUDE_... leave {len(left)} letters and digits for passwords of {length} "
            "characters (PASSWORD_LENGTH), which can be guessed; exclude fewer, or make them longer"
        )
