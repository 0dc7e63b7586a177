"""How does the listener behave when the connection does not?"""

import itertools
import json
import logging
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis

from ledger_db import Settings
from ledger_db.manager.assembly import postgres_server, redis_server, signal_listener
from ledger_db.signals.listener import SignalListener
from ledger_db.testing import ManualClock
from tests.support.events import event_of
from tests.support.waiting import eventually
from tests.unit.test_hints import Server, Source

Frame = list[Any]


@dataclass
class Script:
    """One connection after the other: frames to receive, errors to raise, seconds of silence."""

    clock: ManualClock
    connections: list[list[Frame | Exception | float]]
    pings: list[float] = field(default_factory=list)
    closed: int = 0
    stop: Any = None

    def subscribe(self) -> "ScriptedChannel":
        """Make the next connection."""
        if not self.connections:
            self.stop()
            raise redis.ConnectionError("Connection refused.")
        return ScriptedChannel(self, self.connections.pop(0))


class ScriptedChannel:
    """Plays one connection of a script; an error at its beginning is one of the login."""

    def __init__(self, script: Script, lines: list[Frame | Exception | float]) -> None:
        self._script = script
        self._lines = lines

    def open(self) -> None:
        """Raise what stands first, if that is an error."""
        if self._lines and isinstance(self._lines[0], Exception):
            raise self._lines[0]

    def read(self, timeout_seconds: float) -> Frame | None:
        """Play the next line, or a part of its silence."""
        if not self._lines:
            raise redis.ConnectionError("Connection closed by server.")
        line = self._lines[0]
        if isinstance(line, float):
            waited = min(line, timeout_seconds)
            self._script.clock.advance(waited)
            self._lines[:1] = [line - waited] if line > waited else []
            return None
        self._lines.pop(0)
        if isinstance(line, Exception):
            raise line
        return line

    def ping(self) -> None:
        """Remember when."""
        self._script.pings.append(self._script.clock())

    def close(self) -> None:
        """Count."""
        self._script.closed += 1

    def hang_up(self) -> None:
        """Nobody waits here."""


def announced(version: str, secret_id: str = "trust-ledger/postgres") -> Frame:
    """Return an announcement as Redis sends it."""
    message = json.dumps({"secret_id": secret_id, "version_id": version, "strategy": "redis-acl"})
    return [b"message", b"ledger_db:rotations", message.encode()]


def play(server: Server, *connections: list[Frame | Exception | float]) -> tuple[Script, list[float]]:
    """Let a listener live through *connections*; return the script and the pauses between them."""
    clock = ManualClock(0.0)
    script = Script(clock, list(connections))
    listener = SignalListener(script.subscribe, [server], now=clock, spread=lambda: 1.0)
    script.stop = listener.stop
    return script, list(listener._rounds())


@pytest.fixture
def server() -> Server:
    """One server, with the version v1 of its secret."""
    return Server(Source("trust-ledger/postgres"))


def test_an_announcement_is_followed(server: Server) -> None:
    """The service has the new version without having polled for it."""
    server.source.version = "v2"
    play(server, [announced("v2")])

    assert server.provider.current.version == "v2"


def test_listening_begins_without_a_look(server: Server) -> None:
    """A start reads each secret once, not twice."""
    play(server, [1.0])

    assert server.looks == 0


def test_polling_knows_whether_announcements_are_heard(server: Server) -> None:
    """It rests on a subscription that is open, and on no other."""
    heard = []

    class Channel(ScriptedChannel):
        def read(self, timeout_seconds: float) -> Frame | None:
            heard.append(server.hears)
            return super().read(timeout_seconds)

    script = Script(ManualClock(0.0), [])
    channels = [Channel(script, [1.0]), Channel(script, [redis.ConnectionError("down")])]
    listener = SignalListener(lambda: channels.pop(0), [server], now=script.clock, spread=lambda: 1.0)
    rounds = listener._rounds()
    next(rounds)
    assert heard == [True, True]
    assert not server.hears
    next(rounds)

    assert not server.hears
    listener.stop()


def test_what_was_announced_during_a_gap_is_found(server: Server) -> None:
    """Redis keeps nothing for those who are away, so they look when they are back."""
    script, pauses = play(server, [1.0], [1.0])

    assert server.looks == 1
    assert len(pauses) == 2
    assert script.closed == 2


def test_a_gap_at_the_start_is_none(server: Server) -> None:
    """Nothing can have been missed before the first subscription that worked."""
    play(server, [redis.ConnectionError("Connection refused.")], [1.0])

    assert server.looks == 0


def test_an_idle_connection_is_asked_for_a_sign_of_life(server: Server) -> None:
    """A firewall that forgets an idle connection would otherwise never be noticed."""
    script, pauses = play(server, [20.0, [b"pong", b""], 20.0, [b"pong", b""], 19.0])

    assert script.pings == [20.0, 40.0]
    assert len(pauses) == 1


def test_silence_after_the_question_is_a_loss(server: Server) -> None:
    """No answer for as long as it takes to ask again: the connection is dead."""
    script, pauses = play(server, [1000.0])

    assert script.pings == [20.0]
    assert script.clock() == 40.0
    assert len(pauses) == 1


def test_attempts_become_rarer_up_to_a_limit(server: Server) -> None:
    """A Redis that is down is not stormed by its listeners."""
    down: list[list[Frame | Exception | float]] = [
        [redis.ConnectionError("Connection refused.")] for _ in range(12)
    ]
    _, pauses = play(server, *down)

    assert pauses[:4] == pytest.approx([0.25, 0.45, 0.85, 1.65])
    assert pauses[-1] == pytest.approx(30.05)


def test_a_connection_that_lasted_starts_a_new_series(server: Server) -> None:
    """One loss a day is no reason to wait half a minute."""
    _, pauses = play(server, [11.0], [11.0], [11.0])

    assert pauses == pytest.approx([0.25, 0.25, 0.25])


def test_a_server_that_hangs_up_at_once_is_not_called_in_a_circle(server: Server) -> None:
    """Connections that do not last count as failures."""
    _, pauses = play(server, [0.1], [0.1], [0.1])

    assert pauses == pytest.approx([0.25, 0.45, 0.85])


def test_who_may_not_subscribe_does_not_insist(server: Server) -> None:
    """A missing right is not there a second later; polling goes on."""
    forbidden = redis.exceptions.NoPermissionError("this user has no permissions to access the channel")
    _, pauses = play(server, [forbidden])

    assert pauses == [300.0]


@pytest.mark.parametrize(
    "frame",
    [
        [b"message", b"ledger_db:rotations", b"\xff not json"],
        [b"message", b"ledger_db:rotations", b"x" * 100_000],
        [b"message", b"ledger_db:rotations", b'{"secret_id": "somebody/else"}'],
        [b"subscribe", b"ledger_db:rotations", 1],
    ],
)
def test_what_is_nothing_for_us_is_ignored(
    server: Server, frame: Frame, caplog: pytest.LogCaptureFixture
) -> None:
    """It causes no read, costs no connection, and none of its text is in a log line above debug."""
    server.source.version = "v2"
    with caplog.at_level(logging.DEBUG, logger="ledger_db"):
        play(server, [frame, 1.0, announced("v2")])

    assert server.looks == 1
    assert "not json" not in caplog.text
    assert "xxxx" not in caplog.text


@pytest.mark.parametrize("odd", [[b"message"], [None], [b"message", 1, 2]])
def test_a_server_that_makes_no_sense_is_a_lost_connection(server: Server, odd: Frame) -> None:
    """Nothing that is received ends the thread."""
    _, pauses = play(server, [odd], [odd], [1.0])

    assert len(pauses) >= 1


def test_who_lies_too_often_is_not_listened_to(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Falsehoods cost a few reads, one warning and a pause, in which nobody has to hear them."""
    lies: list[Frame | Exception | float] = []
    for number in range(20):
        lies += [announced(f"made-up-{number}"), 1.0]
    script, pauses = play(server, lies)

    assert server.looks == 6
    assert pauses == [600.0]
    assert not server.hears
    assert script.closed == 1
    assert [event_of(record) for record in caplog.records if record.levelno >= logging.WARNING] == [
        "signals.distrusted"
    ]
    assert "trust-ledger/postgres was said to have changed" in caplog.text


@pytest.mark.parametrize("noise", [b"", b"not json" * 1000, b'{"secret_id": "another"}'])
def test_a_channel_full_of_noise_is_left(
    server: Server, caplog: pytest.LogCaptureFixture, noise: bytes
) -> None:
    """A flood costs one warning and a pause, whatever it is made of, and no look."""
    script, pauses = play(server, [[b"message", b"channel", noise]] * 5000)

    assert server.looks == 0
    assert pauses == [600.0]
    assert script.closed == 1
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert event_of(record) == "signals.distrusted"
    assert "more than 1000 messages an hour" in caplog.text


def test_what_is_known_already_is_noise_too(server: Server) -> None:
    """The version in use, announced without end, is no reason to look and none to go on listening."""
    known = announced(str(server.provider.status.version))
    _, pauses = play(server, [known] * 5000)

    assert server.looks == 0
    assert pauses == [600.0]


def test_who_lies_again_is_not_believed_again(server: Server) -> None:
    """To cut the connection off, or to wait, brings no new budget at once."""
    lies: list[Frame | Exception | float] = [announced("made-up"), 1.0] * 20
    _, pauses = play(server, [*lies], [*lies], [*lies])

    # One look for what may have been missed, each time.
    assert server.looks <= 6 + 2 * 2
    assert pauses[:3] == [600.0] * 3


def test_a_loss_is_reported_once(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """An outage of an hour is one warning, and one line when it is over."""
    down: list[list[Frame | Exception | float]] = [
        [redis.ConnectionError("Connection refused.")] for _ in range(20)
    ]
    with caplog.at_level(logging.INFO, logger="ledger_db"):
        play(server, [11.0], *down, [1.0])

    told = [(r.levelname, event_of(r)) for r in caplog.records if r.name == "ledger_db.signals.listener"]
    assert told == [
        ("INFO", "signals.listening"),
        ("WARNING", "signals.lost"),
        ("INFO", "signals.listening"),
    ]


class BlockingChannel:
    """A connection on which nothing comes, until somebody hangs up."""

    def __init__(self) -> None:
        self.is_read = threading.Event()
        self.is_closed = threading.Event()
        self._frames: queue.Queue[Frame | None] = queue.Queue()

    def open(self) -> None:
        """Connect at once."""

    def read(self, timeout_seconds: float) -> Frame | None:
        """Wait for a frame."""
        self.is_read.set()
        frame = self._frames.get(timeout=timeout_seconds)
        if frame is None:
            raise redis.ConnectionError("Connection closed by server.")
        return frame

    def ping(self) -> None:
        """Expect no answer."""

    def close(self) -> None:
        """Remember it."""
        self.is_closed.set()

    def hang_up(self) -> None:
        """End the read."""
        self._frames.put(None)

    def send(self, frame: Frame) -> None:
        """Let the listener receive *frame*."""
        self._frames.put(frame)


@pytest.fixture
def blocking() -> Iterator[tuple[SignalListener, BlockingChannel, Server]]:
    """A listener in its thread, with an idle connection."""
    server, channel = Server(Source("trust-ledger/postgres")), BlockingChannel()
    listener = SignalListener(lambda: channel, [server])
    listener.start()
    assert channel.is_read.wait(60)
    yield listener, channel, server
    listener.stop()


def test_stopping_does_not_wait_for_a_message(
    blocking: tuple[SignalListener, BlockingChannel, Server],
) -> None:
    """A manager closes at once although nothing is announced for hours."""
    listener, channel, _ = blocking
    listener.stop(timeout_seconds=10)

    assert channel.is_closed.is_set()
    assert [t for t in threading.enumerate() if t.name == "ledger_db-signals"] == []


def test_it_listens_while_the_application_works(
    blocking: tuple[SignalListener, BlockingChannel, Server],
) -> None:
    """A thread of its own hears the announcement."""
    _, channel, server = blocking
    server.source.version = "v2"
    channel.send(announced("v2"))

    eventually(lambda: server.provider.current.version == "v2", "the announcement is followed")


def test_a_listener_that_was_not_started_can_be_stopped() -> None:
    """A manager whose opening failed closes without a trace."""
    listener = SignalListener(BlockingChannel, [])
    listener.stop()
    listener.after_fork()

    assert [t for t in threading.enumerate() if t.name == "ledger_db-signals"] == []


def test_pauses_are_jittered(server: Server) -> None:
    """A hundred services do not come back in the same moment."""
    draws = itertools.cycle([0.0, 0.5])
    clock = ManualClock(0.0)
    script = Script(clock, [[redis.ConnectionError("Connection refused.")] for _ in range(2)])
    listener = SignalListener(script.subscribe, [server], now=clock, spread=lambda: next(draws))
    script.stop = listener.stop
    first, second = list(listener._rounds())

    assert first == pytest.approx(0.05)
    assert second == pytest.approx(0.05 + 0.5 * 0.4)


def test_without_a_redis_there_is_nothing_to_listen_on() -> None:
    """A service of a database alone polls."""
    settings = Settings(database_secret_id="trust-ledger/postgres")
    database = postgres_server(settings)
    assert database is not None

    assert signal_listener(settings, None, [database]) is None


def test_what_cannot_rotate_needs_no_listener() -> None:
    """Fixed credentials are never announced, so no connection is spent on them."""
    settings = Settings(redis_host="127.0.0.1", redis_password="fixed")
    server = redis_server(settings)
    assert server is not None

    assert signal_listener(settings, server, [server]) is None


def test_a_database_that_rotates_is_heard_of_over_any_redis() -> None:
    """The Redis itself may have fixed credentials."""
    settings = Settings(redis_host="127.0.0.1", redis_password="fixed", database_secret_id="some/secret")
    redis_, database = redis_server(settings), postgres_server(settings)
    assert redis_ is not None
    assert database is not None

    assert signal_listener(settings, redis_, [database, redis_]) is not None
