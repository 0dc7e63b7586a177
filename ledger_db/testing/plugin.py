"""
Fixtures for pytest, in every project that has ledger-db installed.

Nothing is started before a test asks for it.  Two are there to be overridden in the first conftest.py:

    ledger_db_settings    which database; the sandbox's if you do not say
    ledger_db_schema      what makes the tables

This file is loaded in every run of pytest, of other people's tests too: it imports nothing but pytest.
"""

import importlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import asyncio
    from typing import TypeAlias

    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from ledger_db.manager.connection_manager import ConnectionManager
    from ledger_db.sandbox import Sandbox
    from ledger_db.settings import Settings
    from ledger_db.testing.faults import Faults
    from ledger_db.testing.isolation import IsolatedManager

    OnLoop: TypeAlias = tuple[AsyncExitStack, asyncio.AbstractEventLoop]

_environment = pytest.StashKey[dict[str, str]]()
"""What has to be set while the manager is opened."""


def pytest_configure(config: pytest.Config) -> None:
    """Add what pytest-asyncio wants done in its own way, if it is there."""
    if config.pluginmanager.hasplugin("asyncio"):
        config.pluginmanager.register(importlib.import_module("ledger_db.testing.on_asyncio"))


@pytest.fixture(scope="session")
def ledger_db_sandbox() -> "Iterator[Sandbox]":
    """Real servers: PostgreSQL, Valkey, and a stand-in for Secrets Manager; one set for each xdist worker."""
    from ledger_db.sandbox import Sandbox  # noqa: PLC0415 - as the module says

    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def ledger_db_environment(ledger_db_sandbox: "Sandbox", monkeypatch: pytest.MonkeyPatch) -> "dict[str, str]":
    """The variables that lead ``Settings()`` and boto3 to the sandbox; they are set for one test."""
    for name, value in ledger_db_sandbox.environment.items():
        monkeypatch.setenv(name, value)
    return ledger_db_sandbox.environment


@pytest.fixture(scope="session")
def ledger_db_settings(request: pytest.FixtureRequest, ledger_db_sandbox: "Sandbox") -> "Settings":
    """Which database: the sandbox's.  Override it for SQLite or a server of your own."""
    from ledger_db.settings import Settings  # noqa: PLC0415 - as the module says

    request.config.stash[_environment] = variables = ledger_db_sandbox.environment
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        return Settings(profile="test")


@pytest.fixture(scope="session")
def ledger_db_manager(
    request: pytest.FixtureRequest, ledger_db_settings: "Settings"
) -> "Iterator[ConnectionManager]":
    """An open manager.  What it commits stays: for tests that isolation would be in the way of."""
    from ledger_db.manager.connection_manager import ConnectionManager  # noqa: PLC0415 - as the module says

    manager = ConnectionManager(ledger_db_settings)
    # For as long as boto3 looks at it, which is while the first secret is read.
    with pytest.MonkeyPatch.context() as patch:
        for name, value in request.config.stash.get(_environment, {}).items():
            patch.setenv(name, value)
        manager.open()
    yield manager
    manager.close()


@pytest.fixture(scope="session")
def ledger_db_schema(ledger_db_manager: "ConnectionManager") -> None:
    """Make the tables, once: override it, with ``Base.metadata.create_all(...)`` or Alembic for example."""


@pytest.fixture
def ledger_db_isolated(
    ledger_db_manager: "ConnectionManager", ledger_db_schema: object
) -> "Iterator[IsolatedManager]":
    """The manager for one test: what its `engine` writes is undone, whatever is committed."""
    from ledger_db.testing.isolation import isolated  # noqa: PLC0415 - as the module says

    with isolated(ledger_db_manager) as manager:
        yield manager


@pytest.fixture
def ledger_db_session(ledger_db_isolated: "IsolatedManager") -> "Iterator[Session]":
    """A session of `ledger_db_isolated`."""
    with ledger_db_isolated.session() as session:
        yield session


@pytest.fixture
def ledger_db_async_isolated(
    ledger_db_isolated: "IsolatedManager", _ledger_db_exits: "OnLoop"
) -> "IsolatedManager":
    """Same as `ledger_db_isolated`, and what its `async_engine` writes is undone too."""
    exits, loop = _ledger_db_exits
    ledger_db_isolated.async_isolate(loop)
    exits.push_async_callback(ledger_db_isolated.async_undo)
    return ledger_db_isolated


@pytest.fixture
def ledger_db_async_session(
    ledger_db_async_isolated: "IsolatedManager", _ledger_db_exits: "OnLoop"
) -> "AsyncSession":
    """An asynchronous session of `ledger_db_async_isolated`."""
    session = ledger_db_async_isolated.async_session()
    exits, _ = _ledger_db_exits
    exits.push_async_callback(session.close)
    return session


@pytest.fixture
def ledger_db_faults(ledger_db_sandbox: "Sandbox", ledger_db_settings: "Settings") -> "Iterator[Faults]":
    """What can go wrong with the sandbox's servers; they are well again when the test is over."""
    if ledger_db_settings.database_secret_id != ledger_db_sandbox.database_secret_id:
        # Otherwise a test of an outage would pass, and test nothing.
        pytest.fail(
            "ledger_db_faults are those of the sandbox, and ledger_db_settings leads elsewhere; "
            "do not override it for tests of outages",
            pytrace=False,
        )
    from ledger_db.testing.faults import Faults  # noqa: PLC0415 - as the module says

    faults = Faults(ledger_db_sandbox)
    try:
        yield faults
    finally:
        faults.heal()


# An ordinary function that looks for the asynchronous one: those who have no plugin for event loops must not
# meet an asynchronous fixture, and those who have two must get the one that runs the test.
@pytest.fixture
def _ledger_db_exits(request: pytest.FixtureRequest, ledger_db_isolated: object) -> "OnLoop":
    """What has to be ended on the test's event loop, before `ledger_db_isolated` is; and that loop."""
    marker = request.node.get_closest_marker("asyncio")
    exits: OnLoop
    if marker is None and "anyio_backend" in request.fixturenames:
        exits = request.getfixturevalue("_ledger_db_exits_anyio")
    elif request.config.pluginmanager.hasplugin("asyncio"):
        exits = request.getfixturevalue(f"_ledger_db_exits_{_loop_scope(request, marker)}")
    else:
        pytest.fail(
            "this test needs an event loop, and no plugin of pytest gives it one; "
            "pip install pytest-asyncio, or mark the test with pytest.mark.anyio",
            pytrace=False,
        )
    return exits


@pytest.fixture
async def _ledger_db_exits_anyio(anyio_backend_name: str) -> AsyncIterator["OnLoop"]:
    """For tests that anyio runs."""
    import asyncio  # noqa: PLC0415 - as the module says

    if anyio_backend_name != "asyncio":
        pytest.fail(
            f"the drivers of ledger_db need asyncio, and this test runs on {anyio_backend_name}; make the "
            'fixture anyio_backend return "asyncio"',
            pytrace=False,
        )
    async with AsyncExitStack() as exits:
        yield exits, asyncio.get_running_loop()


def _loop_scope(request: pytest.FixtureRequest, marker: pytest.Mark | None) -> str:
    given = {} if marker is None else marker.kwargs
    default = "function" if marker is None else request.config.getini("asyncio_default_test_loop_scope")
    return str(given.get("loop_scope") or given.get("scope") or default)
