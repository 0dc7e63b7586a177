"""Redis clients for endpoints.  In a file of their own: redis-py is memory that not every service needs."""

from functools import cache
from typing import Annotated

from fastapi import Depends, params
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from starlette.requests import HTTPConnection

from ledger_db.fastapi.lifetime import manager_of


@cache
def redis_dependency(name: str) -> params.Depends:
    """Return what ``Annotated[Redis, ...]`` needs for a named manager."""

    async def named_redis(connection: HTTPConnection) -> Redis:
        return manager_of(connection, name).redis

    return params.Depends(named_redis)


@cache
def async_redis_dependency(name: str) -> params.Depends:
    """Same as `redis_dependency`, for ``Annotated[AsyncRedis, ...]``."""

    async def named_redis(connection: HTTPConnection) -> AsyncRedis:
        return manager_of(connection, name).async_redis

    return params.Depends(named_redis)


async def redis(connection: HTTPConnection) -> Redis:
    """Return the Redis of the manager called ``default``."""
    return manager_of(connection).redis


async def async_redis(connection: HTTPConnection) -> AsyncRedis:
    """Same as `redis`, for an event loop."""
    return manager_of(connection).async_redis


RedisDep = Annotated[Redis, Depends(redis)]
"""For ``def`` endpoints."""

AsyncRedisDep = Annotated[AsyncRedis, Depends(async_redis)]
"""For ``async def`` endpoints."""
