"""On which event loop can the connection of a test be used?  On the one that the test runs on."""

import asyncio

from ledger_db.errors import ConfigurationError


class Home:
    """
    The event loop of one connection.

    Args:
        loop: None for a connection that belongs to none.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop

    @property
    def is_here(self) -> bool:
        """Whether the connection can be used where this is asked."""
        return self._loop is None or _running() is self._loop

    def refuse_elsewhere(self) -> None:
        """
        Let only that loop go on.

        Raises:
            ConfigurationError: This is another one.
        """
        if self.is_here:
            return
        here, home = _running(), self._loop
        raise ConfigurationError(
            f"the asynchronous connection of this test is on the test's event loop ({_told(home)}), and this "
            f"is another one ({_told(here)}), as the one of its own that a TestClient runs the application "
            "on; ask the application with httpx.AsyncClient(transport=httpx.ASGITransport(app)) in an "
            "'async def' test, and give asynchronous fixtures the loop scope of their tests"
        )


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _told(loop: asyncio.AbstractEventLoop | None) -> str:
    if loop is None:
        return "none at all"
    return f"{type(loop).__name__} {id(loop):#x}{', closed' if loop.is_closed() else ''}"
