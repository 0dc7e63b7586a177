"""
Who starts and ends the servers of a sandbox, whatever happens to the program that wanted them?

``python -m ledger_db.sandbox.supervisor`` is a process of its own.  It gets one line of JSON with its orders
on standard input, starts everything, answers with one line of JSON (``ready`` or ``failed``), and then obeys
one command a line.  When its input ends, its creator is gone: it ends the servers and removes their folder.
Passwords travel through these two pipes only; never through arguments or the environment.
"""

import json
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from ledger_db.errors import LedgerDBError
from ledger_db.sandbox.folder import remove_abandoned
from ledger_db.sandbox.server_group import ServerGroup

_CREATOR_CHECK_SECONDS = 0.5


def _lines(descriptor: int, creator: int, give_up: threading.Event) -> Iterator[str]:
    """
    Yield the lines of a pipe until it ends, until the process *creator* has ended, or until *give_up* is set.

    The second matters where the creator forked: its children hold the pipe open.
    """
    buffered = b""
    while os.getppid() == creator and not give_up.is_set():
        readable, _, _ = select.select([descriptor], [], [], _CREATOR_CHECK_SECONDS)
        if not readable:
            continue
        received = os.read(descriptor, 65_536)
        if not received:
            return
        *lines, buffered = (buffered + received).split(b"\n")
        yield from (line.decode() for line in lines)


def _tell(descriptor: int, number: int, answer: dict[str, Any]) -> None:
    try:
        os.write(descriptor, (json.dumps({"number": number, **answer}) + "\n").encode())
    except BrokenPipeError:
        # The creator is gone; the end of our own input says so as well, and is dealt with there.
        return


def _failure(error: Exception) -> dict[str, Any]:
    return {"failed": {"kind": type(error).__name__, "message": str(error)}}


def _obey_all(servers: ServerGroup, lines: Iterator[str], answers: int) -> None:
    for line in lines:
        asked = json.loads(line)
        try:
            servers.obey(asked["do"], asked["details"])
        except Exception as error:  # noqa: BLE001 - whatever it is, the creator waits for an answer
            _tell(answers, asked["number"], _failure(error))
        else:
            _tell(answers, asked["number"], {"done": True})


def main() -> int:
    """Run one sandbox until its creator is gone."""
    # Answers get a descriptor of their own, so that nothing that prints can garble them.
    answers = os.dup(1)
    os.dup2(2, 1)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    # A signal only raises a flag.  An exception in the middle of whatever runs at the moment would leave a
    # server that was started and not written down, or a lock that was taken and not given back.
    give_up = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(sign, lambda *_: give_up.set())
    # What configures the caller's own PostgreSQL clients must not configure ours.
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]
    lines = _lines(0, os.getppid(), give_up)
    first = next(lines, None)
    return 0 if first is None else _run(json.loads(first), lines, answers, give_up)


def _run(orders: dict[str, Any], lines: Iterator[str], answers: int, give_up: threading.Event) -> int:
    servers = None
    try:
        servers = ServerGroup(orders, give_up)
        _tell(answers, orders["number"], {"ready": servers.start()})
        # Only now: nobody has to wait for what others left.
        remove_abandoned()
        _obey_all(servers, lines, answers)
    except (LedgerDBError, OSError) as error:
        _tell(answers, orders["number"], _failure(error))
        return 1
    finally:
        if servers is not None:
            servers.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
