"""
The Trust Ledger: an append-only ledger behind HTTP, on PostgreSQL and Redis whose passwords rotate.

There is nothing about passwords in here.  The manager is opened when the service starts, and used.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI

from examples.trust_ledger import chain_endpoints, entry_endpoints
from examples.trust_ledger.logs import configure_logging
from examples.trust_ledger.middleware import LimitBodies, NameRequests
from examples.trust_ledger.problem_documents import ALWAYS, describe_problems
from examples.trust_ledger.schema import refuse_unmigrated
from examples.trust_ledger.settings import LedgerSettings
from ledger_db.fastapi import install_error_handlers, lifespan, manager_of, router

_ABOUT = """
Entries are appended, and never changed or removed: each carries the hash of the one before it.

Every append needs an idempotency key.  Whatever happens to a request, sending it again is safe.
"""


def create_app(settings: LedgerSettings | None = None) -> FastAPI:
    """
    Make the service.  Nothing is connected before it starts.

    Args:
        settings: From the environment if None.
    """
    settings = settings or LedgerSettings()
    app = FastAPI(
        title="Trust Ledger",
        version="1.0.0",
        description=_ABOUT,
        lifespan=partial(_run, settings),
    )
    app.state.settings = settings
    app.include_router(entry_endpoints.router, responses=ALWAYS)
    app.include_router(chain_endpoints.router, responses=ALWAYS)
    app.include_router(router)
    install_error_handlers(app, http_errors=True)
    describe_problems(app)
    app.add_middleware(LimitBodies, most_bytes=settings.most_body_bytes)
    app.add_middleware(NameRequests)
    return app


@asynccontextmanager
async def _run(settings: LedgerSettings, app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
    # First, so that a start that fails is in the log as everything else is.
    configure_logging(settings.log_level)
    async with lifespan()(app) as state:
        await refuse_unmigrated(manager_of(app))
        yield state


app = create_app()
