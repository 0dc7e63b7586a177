"""
`ledger_db` in a FastAPI service: sessions that are committed before the answer leaves.

    app = FastAPI(lifespan=lifespan())

    @app.post("/entries")
    def append(session: SessionDep) -> ...:

The names below are all that a service needs.
"""

from typing import TYPE_CHECKING

from ledger_db._front_door import front_door

if TYPE_CHECKING:
    from ledger_db.fastapi.admission import (
        AdmissionOptions as AdmissionOptions,
        AdmissionStatus as AdmissionStatus,
    )
    from ledger_db.fastapi.async_dependencies import (
        AsyncManualSessionDep as AsyncManualSessionDep,
        AsyncReadOnlySessionDep as AsyncReadOnlySessionDep,
        AsyncSerializableSessionDep as AsyncSerializableSessionDep,
        AsyncSessionDep as AsyncSessionDep,
        AsyncSessionFactory as AsyncSessionFactory,
        AsyncSessionFactoryDep as AsyncSessionFactoryDep,
        async_manual_session as async_manual_session,
        async_read_only_session as async_read_only_session,
        async_serializable_session as async_serializable_session,
        async_session as async_session,
        async_session_dependency as async_session_dependency,
        async_session_factory as async_session_factory,
        async_session_factory_dependency as async_session_factory_dependency,
    )
    from ledger_db.fastapi.dependencies import (
        ManagerDep as ManagerDep,
        ManualSessionDep as ManualSessionDep,
        ReadOnlySessionDep as ReadOnlySessionDep,
        SerializableSessionDep as SerializableSessionDep,
        SessionDep as SessionDep,
        SessionFactory as SessionFactory,
        SessionFactoryDep as SessionFactoryDep,
        manager as manager,
        manager_dependency as manager_dependency,
        manual_session as manual_session,
        read_only_session as read_only_session,
        serializable_session as serializable_session,
        session as session,
        session_dependency as session_dependency,
        session_factory as session_factory,
        session_factory_dependency as session_factory_dependency,
    )
    from ledger_db.fastapi.ending import mark_rollback as mark_rollback
    from ledger_db.fastapi.health import make_router as make_router, router as router
    from ledger_db.fastapi.lifetime import lifespan as lifespan, manager_of as manager_of
    from ledger_db.fastapi.problems import (
        install_error_handlers as install_error_handlers,
        problem_responses as problem_responses,
    )
    from ledger_db.fastapi.redis_dependencies import (
        AsyncRedisDep as AsyncRedisDep,
        RedisDep as RedisDep,
        async_redis as async_redis,
        async_redis_dependency as async_redis_dependency,
        redis as redis,
        redis_dependency as redis_dependency,
    )
else:
    # At first use: neither redis-py nor SQLAlchemy's asyncio half is everybody's.
    __getattr__, __dir__ = front_door(
        __name__, extra="fastapi", needs={"anyio": "FastAPI", "fastapi": "FastAPI", "starlette": "FastAPI"}
    )
