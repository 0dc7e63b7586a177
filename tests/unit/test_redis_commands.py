"""Is it known of every command whether it may be sent twice, and how long it waits?"""

import math
from typing import Any

import pytest
from redis.commands import READ_COMMANDS

from ledger_db.connections.redis_commands import NOTHING, asked_by

STORES = {"GEORADIUS", "GEORADIUSBYMEMBER"}


@pytest.mark.parametrize("name", sorted(READ_COMMANDS - STORES))
def test_a_read_may_be_sent_twice(name: str) -> None:
    """What only reads is repeated, and nothing is lost by it."""
    assert asked_by([(name, "key")]).may_repeat
    assert asked_by([(name.lower().encode(), b"key")]).may_repeat


@pytest.mark.parametrize(
    "command",
    [
        ("INCR", "n"),
        ("incr", "n"),
        (b"INCR", "n"),
        ("SET", "k", "v"),
        ("SET", "k", "v", "GET"),
        ("GETDEL", "k"),
        ("GETEX", "k", "PERSIST"),
        ("GETSET", "k", "v"),
        ("RPUSH", "l", "v"),
        ("LPOP", "l"),
        ("BLPOP", "l", 1),
        ("SPOP", "s"),
        ("PUBLISH", "c", "m"),
        ("XADD", "s", "*", "k", "v"),
        ("XREADGROUP", "GROUP", "g", "c", "STREAMS", "s", ">"),
        ("EVAL", "return 1", 0),
        ("EVALSHA", "sha", 0),
        ("FCALL", "f", 0),
        ("SORT", "l", "STORE", "k"),
        ("GEORADIUS", "g", 0, 0, 1, "m", "STORE", "k"),
        ("GEORADIUSBYMEMBER", "g", "m", 1, "m", "STORE", "k"),
        ("SCRIPT LOAD", "return 1"),
        ("CONFIG SET", "k", "v"),
        ("FLUSHALL",),
        ("SOME.MODULE", "k"),
    ],
    ids=str,
)
def test_everything_else_may_not(command: tuple[Any, ...]) -> None:
    """What may change something, and what nobody knows, is done once, alone and among reads."""
    assert not asked_by([command]).may_repeat
    assert not asked_by([("GET", "k"), command, ("GET", "k")]).may_repeat
    assert not asked_by([("MULTI",), ("GET", "k"), command, ("EXEC",)]).may_repeat


@pytest.mark.parametrize(
    "commands",
    [
        [("GET", "k"), ("LLEN", "l")],
        [("MULTI",), ("GET", "k"), ("EXEC",)],
        [("WATCH", "k")],
        [("SUBSCRIBE", "c")],
        [("PING",)],
    ],
    ids=str,
)
def test_reads_together_may_be_sent_twice(commands: list[tuple[Any, ...]]) -> None:
    """A pipeline or a transaction of reads is a read; to watch or to subscribe twice is to do it once."""
    assert asked_by(commands).may_repeat


@pytest.mark.parametrize(
    ("command", "seconds"),
    [
        (("GET", "k"), 0.0),
        (("BLPOP", "l", "l2", 8), 8.0),
        (("BRPOP", "l", "2.5"), 2.5),
        (("brpoplpush", "a", "b", b"4"), 4.0),
        (("BLMOVE", "a", "b", "LEFT", "RIGHT", 3), 3.0),
        (("BLMOVEM", "a", "b", "LEFT", "RIGHT", 3, "COUNT", 2, "OBO"), 3.0),
        (("BZPOPMIN", "z", 3), 3.0),
        (("BZPOPMAX", "z", 3), 3.0),
        (("BLMPOP", 7, 1, "l", "LEFT"), 7.0),
        (("BZMPOP", 7, 1, "z", "MIN"), 7.0),
        (("BLPOP", "l", 0), math.inf),
        (("BLPOP", "l"), 0.0),
        (("BLPOP", "l", -1), math.inf),
        (("XREAD", b"BLOCK", "8000", b"STREAMS", "s", "$"), 8.0),
        (("XREAD", "count", 1, "block", 0, "streams", "s", "$"), math.inf),
        (("XREAD", "STREAMS", "BLOCK", "0"), 0.0),
        (("XREAD", b"BLOCK", "8000", b"STREAMS", b"\xff\x00", "$"), 8.0),
        (("XREADGROUP", b"GROUP", b"\xfe", "c", b"BLOCK", 2000, b"STREAMS", "s", ">"), 2.0),
        (("XREADGROUP", b"GROUP", "block", "1000", b"BLOCK", 2000, b"STREAMS", "s", ">"), 2.0),
        (("XREADGROUP", b"GROUP", "g", "block", b"STREAMS", "s", ">"), 0.0),
        (("WAIT", 1, 500), 0.5),
        (("WAITAOF", 1, 1, 0), math.inf),
        (("MONITOR",), math.inf),
    ],
    ids=str,
)
def test_a_command_says_how_long_it_waits(command: tuple[Any, ...], seconds: float) -> None:
    """Its answer may take that long, however it is written down; a key may be called like an option."""
    assert asked_by([command]).wait_seconds == seconds


def test_commands_together_wait_one_after_the_other() -> None:
    """In a pipeline the last answer comes after all of them; in a transaction nothing waits."""
    waiting = [("BLPOP", "a", 2), ("GET", "k"), ("BLPOP", "b", 3)]

    assert asked_by(waiting).wait_seconds == 5.0
    assert asked_by([("MULTI",), *waiting, ("EXEC",)]).wait_seconds == 0.0


def test_no_command_at_all_asks_nothing() -> None:
    """A pipeline that has watched a key and then has nothing to send is no mistake."""
    assert asked_by([]) == NOTHING
