"""What of a service is still on the servers?"""

import gc
from contextlib import closing
from typing import Any

from ledger_db.sandbox import Sandbox
from tests.support.waiting import eventually


def sessions(box: Sandbox) -> int:
    """Count the service's sessions on PostgreSQL."""
    with closing(box.postgres.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'ledger_app%'")
        return int(cursor.fetchone()[0])


def clients(box: Sandbox) -> int:
    """Count the service's connections to Redis."""
    admin: Any = box.redis.connect()
    with closing(admin):
        return sum(client["user"] == "ledger_app" for client in admin.client_list())


def nothing_left(box: Sandbox) -> None:
    """Wait until neither server knows us any more, without the help of the garbage collector."""
    gc.disable()
    try:
        eventually(lambda: sessions(box) == 0, "no session is left on PostgreSQL")
        eventually(lambda: clients(box) == 0, "no connection is left on Redis")
    finally:
        gc.enable()
