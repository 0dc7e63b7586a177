"""
`ledger_db` in a FastAPI service: sessions that are committed before the answer leaves.

    app = FastAPI(lifespan=lifespan())

    @app.post("/entries")
    def append(session: SessionDep) -> ...:

The names below are all that a service needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ledger_db.errors import ConfigurationError

try:
    # The one name that is a module's too: Python would put the module in its place, were it not here already.
    from ledger_db.fastapi.lifespan import lifespan, manager_of
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in {"anyio", "fastapi", "starlette"}:
        raise
    raise ConfigurationError("FastAPI is not installed; pip install 'ledger-db[fastapi]'") from error

if TYPE_CHECKING:
    from ledger_db.fastapi.admission import AdmissionOptions, AdmissionStatus
    from ledger_db.fastapi.async_dependencies import (
        AsyncManualSessionDep,
        AsyncReadOnlySessionDep,
        AsyncSerializableSessionDep,
        AsyncSessionDep,
        AsyncSessionFactory,
        AsyncSessionFactoryDep,
        async_manual_session,
        async_read_only_session,
        async_serializable_session,
        async_session,
        async_session_dependency,
        async_session_factory,
        async_session_factory_dependency,
    )
    from ledger_db.fastapi.dependencies import (
        ManagerDep,
        ManualSessionDep,
        ReadOnlySessionDep,
        SerializableSessionDep,
        SessionDep,
        SessionFactory,
        SessionFactoryDep,
        manager,
        manager_dependency,
        manual_session,
        read_only_session,
        serializable_session,
        session,
        session_dependency,
        session_factory,
        session_factory_dependency,
    )
    from ledger_db.fastapi.ending import mark_rollback
    from ledger_db.fastapi.health import make_router, router
    from ledger_db.fastapi.problems import install_error_handlers, problem_responses
    from ledger_db.fastapi.redis_dependencies import (
        AsyncRedisDep,
        RedisDep,
        async_redis,
        async_redis_dependency,
        redis,
        redis_dependency,
    )

__all__ = [
    "AdmissionOptions",
    "AdmissionStatus",
    "AsyncManualSessionDep",
    "AsyncReadOnlySessionDep",
    "AsyncRedisDep",
    "AsyncSerializableSessionDep",
    "AsyncSessionDep",
    "AsyncSessionFactory",
    "AsyncSessionFactoryDep",
    "ManagerDep",
    "ManualSessionDep",
    "ReadOnlySessionDep",
    "RedisDep",
    "SerializableSessionDep",
    "SessionDep",
    "SessionFactory",
    "SessionFactoryDep",
    "async_manual_session",
    "async_read_only_session",
    "async_redis",
    "async_redis_dependency",
    "async_serializable_session",
    "async_session",
    "async_session_dependency",
    "async_session_factory",
    "async_session_factory_dependency",
    "install_error_handlers",
    "lifespan",
    "make_router",
    "manager",
    "manager_dependency",
    "manager_of",
    "manual_session",
    "mark_rollback",
    "problem_responses",
    "read_only_session",
    "redis",
    "redis_dependency",
    "router",
    "serializable_session",
    "session",
    "session_dependency",
    "session_factory",
    "session_factory_dependency",
]

# Imported at first use: neither redis-py nor SQLAlchemy's asyncio half is everybody's.
_HOME = {
    "AdmissionOptions": "admission",
    "AdmissionStatus": "admission",
    "AsyncManualSessionDep": "async_dependencies",
    "AsyncReadOnlySessionDep": "async_dependencies",
    "AsyncRedisDep": "redis_dependencies",
    "AsyncSerializableSessionDep": "async_dependencies",
    "AsyncSessionDep": "async_dependencies",
    "AsyncSessionFactory": "async_dependencies",
    "AsyncSessionFactoryDep": "async_dependencies",
    "ManagerDep": "dependencies",
    "ManualSessionDep": "dependencies",
    "ReadOnlySessionDep": "dependencies",
    "RedisDep": "redis_dependencies",
    "SerializableSessionDep": "dependencies",
    "SessionDep": "dependencies",
    "SessionFactory": "dependencies",
    "SessionFactoryDep": "dependencies",
    "async_manual_session": "async_dependencies",
    "async_read_only_session": "async_dependencies",
    "async_redis": "redis_dependencies",
    "async_redis_dependency": "redis_dependencies",
    "async_serializable_session": "async_dependencies",
    "async_session": "async_dependencies",
    "async_session_dependency": "async_dependencies",
    "async_session_factory": "async_dependencies",
    "async_session_factory_dependency": "async_dependencies",
    "install_error_handlers": "problems",
    "make_router": "health",
    "manager": "dependencies",
    "manager_dependency": "dependencies",
    "manual_session": "dependencies",
    "mark_rollback": "ending",
    "problem_responses": "problems",
    "read_only_session": "dependencies",
    "redis": "redis_dependencies",
    "redis_dependency": "redis_dependencies",
    "router": "health",
    "serializable_session": "dependencies",
    "session": "dependencies",
    "session_dependency": "dependencies",
    "session_factory": "dependencies",
    "session_factory_dependency": "dependencies",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
