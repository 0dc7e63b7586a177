"""
Can a server have this host?

A text that is none is waited for as a name that DNS does not know yet, for as long as a start may take.  Who
reads it here says at once what is wrong: most of them are a port, a URL or a list that was meant well.
"""

import ipaddress
import re
from typing import Final

# What DNS can carry, and what names of containers add to it; a name may end in the dot of the root.
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_MOST_CHARACTERS: Final = 254
_NUMBERS: Final = re.compile(r"[0-9.]+")

# By the first that fits, what the mistake is, and what to do about it.
_MISTAKES: Final[tuple[tuple[re.Pattern[str], str], ...]] = tuple(
    (re.compile(pattern, re.DOTALL), words)
    for pattern, words in (
        (r"\s.*|.*\s", "has white space around it; remove that"),
        (r".*\s.*", "has white space in it; one name or address is taken"),
        (r".*[\x00-\x1f\x7f].*", "holds a character that cannot be seen; write it anew"),
        (
            r".*[^\x00-\x7f].*",
            "holds a letter that DNS does not know; an international name has a form in ASCII",
        ),
        (r".*://.*", "is a URL; the host alone is taken, and the port in a field of its own"),
        (r".*[,;].*", "is a list; one name or address is taken"),
        (r".*@.*", "has a user in front; who logs in has a field of its own"),
        (r"\[.*\]", "has brackets around it; an address of IPv6 is written without"),
        (r"\[.*\]:.*|[^:]*:[0-9]*", "has a port behind it; that has a field of its own"),
        (r".*/.*", "has a path; the host alone is taken"),
        (r".{255,}", "is longer than a name can be"),
    )
)


def why_no_host(text: str, *, sockets: bool = False) -> str | None:
    """
    Return why *text* can be the host of no server, in words that do not repeat it; None if it can.

    Args:
        text: A name or an address.

        sockets: Whether it may be the folder of a socket, as PostgreSQL has one.
    """
    if not text:
        return "is empty"
    if sockets and text.startswith("/") and not re.search(r"[\x00,]|\s$", text):
        return None
    if _is_address(text) or _is_name(text):
        return None
    fitting = (words for pattern, words in _MISTAKES if pattern.fullmatch(text))
    return next(fitting, "is neither a name nor an address")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    # A zone may hold anything, for ipaddress.
    return re.search(r"[^0-9A-Za-z:.%_-]", text) is None


def _is_name(text: str) -> bool:
    # What has nothing but numbers is an address with a mistake; a resolver takes 5432 for 0.0.21.56.
    return len(text) <= _MOST_CHARACTERS and bool(_NAME.fullmatch(text)) and not _NUMBERS.fullmatch(text)
