"""
PostgreSQL, Valkey and a Secrets Manager stand-in on this machine, without containers.

    with Sandbox() as box:
        os.environ.update(box.environment)
        box.rotate_database(window_seconds=1.0)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ledger_db.sandbox.box import Sandbox
    from ledger_db.sandbox.rotate import Strategy
    from ledger_db.sandbox.servers import PostgresServer, RedisServer, SecretsManagerServer
    from ledger_db.sandbox.tls import TLSFiles

__all__ = ["PostgresServer", "RedisServer", "Sandbox", "SecretsManagerServer", "Strategy", "TLSFiles"]

_HOMES = {
    "PostgresServer": "servers",
    "RedisServer": "servers",
    "Sandbox": "box",
    "SecretsManagerServer": "servers",
    "Strategy": "rotate",
    "TLSFiles": "tls",
}


def __getattr__(name: str) -> Any:
    # On demand: the supervisor is a module of this package too, and must not wait for what only its creator
    # needs.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib  # noqa: PLC0415 - as above

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
