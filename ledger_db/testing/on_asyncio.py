"""
What has to be ended on an event loop, under pytest-asyncio.

One fixture for each scope that a loop may have: a connection can be used and closed only on its own loop, so
it has to be the one that the test runs on.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Literal

import pytest_asyncio

Scope = Literal["function", "class", "module", "package", "session"]


def _exits(scope: Scope) -> Any:
    @pytest_asyncio.fixture(loop_scope=scope, name=f"_ledger_db_exits_{scope}")
    async def exits() -> AsyncIterator[tuple[AsyncExitStack, asyncio.AbstractEventLoop]]:
        async with AsyncExitStack() as stack:
            yield stack, asyncio.get_running_loop()

    return exits


on_function_loop: Any = _exits("function")
on_class_loop: Any = _exits("class")
on_module_loop: Any = _exits("module")
on_package_loop: Any = _exits("package")
on_session_loop: Any = _exits("session")
