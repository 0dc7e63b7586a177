"""Does whoever waits for a thread always hear what became of it?"""

import asyncio
import gc
import logging
import threading
from concurrent.futures import Future

import pytest

from ledger_db.background import News, async_wait, in_thread
from ledger_db.errors import Retryable


def test_what_a_call_returns_is_handed_over() -> None:
    """The answer comes from a thread that does not keep the process from ending."""
    thread = in_thread(threading.current_thread, name="ledger_db-test").result(60)

    assert (thread.name, thread.daemon) == ("ledger_db-test", True)


def test_what_a_call_raises_is_raised_where_it_is_waited_for() -> None:
    """Nothing is lost in a thread that nobody looks at."""

    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        in_thread(fail, name="ledger_db-test").result(60)


def test_who_stops_waiting_does_not_cancel_it_for_the_others() -> None:
    """One impatient caller of many costs the others nothing."""
    go_on = threading.Event()
    answer = in_thread(go_on.wait, name="ledger_db-test")

    assert not answer.cancel()
    go_on.set()
    assert answer.result(60)


def test_a_thread_that_cannot_be_started_is_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for what will never begin, and the error says that it is no matter of credentials."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        answer = in_thread(int, name="ledger_db-test")

    with pytest.raises(Retryable, match=r"no thread is left for ledger_db-test \(can't start new thread\)"):
        answer.result(0)


def test_news_wake_everybody_who_waits() -> None:
    """In threads and on loops alike, once, and nobody who asked before misses what came before it waited."""
    news = News()
    before = news.next
    news.tell()
    assert before.done()
    after = news.next
    assert not after.done()

    async def wait() -> bool:
        await async_wait(after, timeout_seconds=30)
        return after.done()

    on_a_loop = in_thread(lambda: asyncio.run(wait()), name="ledger_db-test")
    in_a_thread = in_thread(lambda: after.result(30), name="ledger_db-test")
    news.tell()

    assert on_a_loop.result(30)
    assert in_a_thread.result(30) is None


def test_many_may_tell_at_once() -> None:
    """None of them is told that somebody else was quicker."""
    news = News()

    def tell_often() -> None:
        for _ in range(200):
            news.tell()

    for teller in [in_thread(tell_often, name="ledger_db-test") for _ in range(8)]:
        teller.result(30)


async def test_a_wait_on_a_loop_ends_in_time() -> None:
    """What never comes is not waited for."""
    await async_wait(Future(), timeout_seconds=0.01)


def test_an_error_that_a_loop_waits_for_is_no_error_of_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    """Who waits with many takes the error from the answer: asyncio has nothing to complain of."""
    answer: Future[None] = Future()

    async def wait_and_fail() -> None:
        waiting = [asyncio.create_task(async_wait(answer, timeout_seconds=30)) for _ in range(12)]
        waiting[0].cancel()
        await asyncio.sleep(0)
        answer.set_exception(PermissionError("AWSPENDING"))
        await asyncio.gather(*waiting, return_exceptions=True)

    with caplog.at_level(logging.DEBUG):
        asyncio.run(wait_and_fail())
        gc.collect()

    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_loop_that_has_ended_is_not_woken(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever answers later neither fails nor logs."""
    answer: Future[None] = Future()
    asyncio.run(async_wait(answer, timeout_seconds=0.01))

    answer.set_result(None)

    assert caplog.records == []
