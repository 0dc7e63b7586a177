"""Does whoever waits for a thread always hear what became of it?"""

import threading

import pytest

from ledger_db.background import in_thread
from ledger_db.errors import Retryable


def test_what_a_call_returns_is_handed_over() -> None:
    """The answer comes from a thread that does not keep the process from ending."""
    thread = in_thread(threading.current_thread, name="ledger_db-test").result(10)

    assert (thread.name, thread.daemon) == ("ledger_db-test", True)


def test_what_a_call_raises_is_raised_where_it_is_waited_for() -> None:
    """Nothing is lost in a thread that nobody looks at."""

    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        in_thread(fail, name="ledger_db-test").result(10)


def test_who_stops_waiting_does_not_cancel_it_for_the_others() -> None:
    """One impatient caller of many costs the others nothing."""
    go_on = threading.Event()
    answer = in_thread(go_on.wait, name="ledger_db-test")

    assert not answer.cancel()
    go_on.set()
    assert answer.result(10)


def test_a_thread_that_cannot_be_started_is_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for what will never begin, and the error says that it is no matter of credentials."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        answer = in_thread(int, name="ledger_db-test")

    with pytest.raises(Retryable, match=r"no thread is left for ledger_db-test \(can't start new thread\)"):
        answer.result(0)
