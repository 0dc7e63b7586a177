"""What does a Redis command ask of its connection: may it be sent twice, and how long may its answer take?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from redis.commands import READ_COMMANDS

Command = Sequence[Any]

# redis-py's list, which grows with its versions.  These two, which older ones have on it, may also store.
_READS: Final = READ_COMMANDS - {"GEORADIUS", "GEORADIUSBYMEMBER"}
# What changes nothing but the connection, or nothing by itself: EXEC does what stood before it.
_OF_THE_CONNECTION: Final = frozenset(
    {"PING", "MULTI", "EXEC", "WATCH", "UNWATCH"}
    | {"SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"}
)
_MAY_BE_SENT_TWICE: Final = _READS | _OF_THE_CONNECTION

_SECOND, _MILLISECOND = 1.0, 0.001
# Where a command says how long it waits, and in which unit; 0 is for ever.
_WAITS_AT: Final[dict[str, tuple[int, float]]] = {
    **dict.fromkeys(("BLPOP", "BRPOP", "BRPOPLPUSH", "BLMOVE", "BZPOPMIN", "BZPOPMAX"), (-1, _SECOND)),
    **dict.fromkeys(("BLMPOP", "BZMPOP"), (1, _SECOND)),
    "BLMOVEM": (5, _SECOND),
    **dict.fromkeys(("WAIT", "WAITAOF"), (-1, _MILLISECOND)),
}
_BLOCKS: Final = frozenset({"XREAD", "XREADGROUP"})


@dataclass(frozen=True, slots=True)
class Asked:
    """
    What is under way on a connection.

    Attributes:
        may_repeat: Whether doing it twice is the same as doing it once.

        wait_seconds: How long it waits in the server by itself; infinite for as long as it takes.
    """

    may_repeat: bool
    wait_seconds: float = 0.0


NOTHING: Final = Asked(may_repeat=True)
"""Nothing was sent yet, so there is nothing that could be done twice."""


def asked_by(commands: Sequence[Command]) -> Asked:
    """Return what *commands*, sent together, ask: one, a pipeline, or a transaction."""
    each = [_asked_by_one(command) for command in commands]
    if len(each) == 1:
        return each[0]
    # Inside of a transaction nothing waits.  There may be no command at all: a pipeline that only watches.
    waits = 0.0 if commands and commands[0][0] == "MULTI" else sum(asked.wait_seconds for asked in each)
    return Asked(all(asked.may_repeat for asked in each), waits)


def _asked_by_one(command: Command) -> Asked:
    known = _asked_by_name(command[0])
    if known is not None:
        return known
    name, *more = _words(command[0])
    return Asked(name in _MAY_BE_SENT_TWICE, _wait_of(name, [name, *more, *command[1:]]))


# Each request asks this, and an application knows a few dozen commands.
@lru_cache(maxsize=512)
def _asked_by_name(first: str | bytes) -> Asked | None:
    """Return what a command asks whatever stands behind its name; None if that says how long it waits."""
    name = _words(first)[0]
    if name in _WAITS_AT or name in _BLOCKS:
        return None
    return Asked(name in _MAY_BE_SENT_TWICE, math.inf if name == "MONITOR" else 0.0)


def _words(first: str | bytes) -> list[str]:
    # "config get" is one string in redis-py.
    return _word(first).split()


def _word(part: Any) -> str:
    # Not UTF-8, which a key need not be; what is compared is ASCII.
    return (part.decode("latin-1") if isinstance(part, bytes) else str(part)).upper()


def _wait_of(name: str, command: Command) -> float:
    try:
        if name in _BLOCKS:
            seconds = _block(command)
        else:
            place, unit = _WAITS_AT[name]
            seconds = float(command[place]) * unit
    except (IndexError, TypeError, ValueError):
        return 0.0  # it does not wait, or is a mistake, for which the server will not wait
    return max(seconds, 0.0) or math.inf


def _block(command: Command) -> float:
    words = [_word(part) for part in command]
    # The names of a group and of a consumer, and the keys after STREAMS, may be BLOCK as well.
    begin = 4 if words[0] == "XREADGROUP" else 1
    options = words[begin : words.index("STREAMS", begin)]
    return float(options[options.index("BLOCK") + 1]) * _MILLISECOND
