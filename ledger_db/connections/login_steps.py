"""What may a login want done, and how is that done in a thread or on an event loop?"""

import asyncio
import time
from collections.abc import Generator
from concurrent.futures import Future, wait
from dataclasses import dataclass

from ledger_db.background import async_wait
from ledger_db.credentials.model import Credentials, Stage


@dataclass(frozen=True, slots=True)
class Attempt:
    """Log in with *credentials*; send back None if that worked, or the error that refused them."""

    credentials: Credentials


@dataclass(frozen=True, slots=True)
class Look:
    """Ask the provider what else *stage* has than version *after*; send back the credentials or None."""

    stage: Stage
    after: str
    timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Let *seconds* pass, or less if *until* is done before."""

    seconds: float
    until: "Future[None] | None" = None


def pause_here(step: Pause) -> None:
    """Carry out *step* in this thread."""
    if step.until is None:
        time.sleep(step.seconds)
    else:
        wait([step.until], step.seconds)


async def async_pause(step: Pause) -> None:
    """Same as `pause_here`, on an event loop."""
    if step.until is None:
        await asyncio.sleep(step.seconds)
    else:
        await async_wait(step.until, timeout_seconds=step.seconds)


Step = Attempt | Look | Pause
Reply = Credentials | BaseException | None
Procedure = Generator[Step, Reply, None]
