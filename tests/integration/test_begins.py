"""Is a pooled connection as good as before after its server has refused to begin a transaction?"""

import re

import pytest
from sqlalchemy.exc import DBAPIError

from ledger_db import Settings
from ledger_db.sandbox import Sandbox
from ledger_db.transactions.meaning import Meaning, meaning_of
from tests.support.any_driver import client_of
from tests.support.idle_sessions import pid
from tests.support.proxy import Line, Proxy
from tests.support.replica import Pair
from tests.support.writing import settings_for


class Refusal(Proxy):
    """
    Refuses transactions, as a server does that has no time.

    Attributes:
        left: How many are still to be refused.
    """

    left = 0

    def on_sent(self, line: Line, chunk: bytes) -> None:
        """Pass it on, or answer it with an error and with being ready again."""
        if not self.left or not re.match(rb"[QP]....\0?BEGIN", chunk, re.DOTALL):
            line.server.sendall(chunk)
            return
        self.left -= 1
        fields = b"SERROR\0VERROR\0C57014\0Mcanceling statement due to statement timeout\0\0"
        line.client.sendall(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields + b"Z\0\0\0\x05I")


@pytest.mark.parametrize("times", [1, 3])
def test_a_transaction_that_was_refused_is_the_only_one(
    direct: Settings, box: Sandbox, driver: str, times: int
) -> None:
    """The next one begins, on the same connection, and is a transaction of its own."""
    known = direct.model_dump(exclude_unset=True)
    with Refusal(box.postgres.host, box.postgres.port) as server:
        far = Settings(**{**known, "database_port": server.port, "pool_size": 1})
        with client_of(driver, far) as client:
            before = client.begin(pid)
            server.left = times
            for _ in range(times):
                with pytest.raises(DBAPIError) as refused:
                    client.begin(pid)
                assert meaning_of(refused.value) is Meaning.TIMED_OUT

            assert client.begin(pid, isolation_level="SERIALIZABLE") == before
            assert client.begin(pid, isolation_level="REPEATABLE READ", read_only=True) == before
            assert client.begin(pid) == before


def test_what_a_standby_cannot_begin_spoils_nothing(both: Pair, driver: str) -> None:
    """It refuses a serializable transaction at its very beginning, and takes any other after it."""
    standby = settings_for(both.standby.port, database_target="any", pool_size=1)
    with client_of(driver, standby) as client:
        before = client.begin(pid)
        with pytest.raises(DBAPIError, match="serializable mode in a hot standby"):
            client.begin(pid, isolation_level="SERIALIZABLE")

        assert client.begin(pid) == before
