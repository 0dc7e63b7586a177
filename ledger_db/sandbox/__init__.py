"""
PostgreSQL, Valkey and a Secrets Manager stand-in on this machine, without containers.

    with Sandbox() as box:
        os.environ.update(box.environment)
        box.rotate_database(window_seconds=1.0)
"""

from typing import TYPE_CHECKING

from ledger_db._front_door import front_door

if TYPE_CHECKING:
    from ledger_db.sandbox.box import Sandbox as Sandbox
    from ledger_db.sandbox.rotate import Strategy as Strategy
    from ledger_db.sandbox.servers import (
        PostgresServer as PostgresServer,
        RedisServer as RedisServer,
        SecretsManagerServer as SecretsManagerServer,
    )
    from ledger_db.sandbox.tls import TLSFiles as TLSFiles
else:
    # At first use: the supervisor is a module of this package too, and must not wait for what only its
    # creator needs.
    __getattr__, __dir__ = front_door(__name__)
