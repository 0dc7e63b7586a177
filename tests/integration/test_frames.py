"""Do the frames of an error keep a password, for tools that print their variables?"""

import asyncio
import copy
import json
import pickle
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from sqlalchemy import text

from ledger_db import ConnectionManager, Credentials, LedgerDBError, Password, Settings
from ledger_db.answers.secret import Secret
from ledger_db.answers.tls import TLS
from ledger_db.credentials.secrets_manager import SecretsManagerSource
from ledger_db.credentials.static import StaticSource
from ledger_db.rotation import postgres_login, redis_login
from ledger_db.rotation.protocol import Deadline, ServerProblem
from ledger_db.sandbox import Sandbox
from tests.support.any_driver import DRIVERS, choice_of, is_on_loop
from tests.support.frames import PASSWORD, shown_in
from tests.support.rotations import new_client


class Server:
    """
    Reads what a client says first, and answers with what it was made with, or nothing.

    Attributes:
        port: Where it listens.

        asked: Set when a client has said something.
    """

    def __init__(self, answer: bytes | None) -> None:
        self.asked = threading.Event()
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._clients: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Hang up."""
        for end in (self._listener, *self._clients):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._clients.append(client)
                client.recv(4096)
                self.asked.set()
                if self._answer is not None:
                    client.sendall(self._answer)
                    client.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def silent() -> Iterator[Server]:
    """A server that lets nobody log in, and nobody give up."""
    with closing(Server(None)) as server:
        yield server


@pytest.fixture(params=[b"", b"rubbish" * 9, b"R\0\0\0\x08\0\0\0\x07"], ids=["hangs up", "rubbish", "GSS"])
def odd(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that answers a login with something else than yes or no."""
    with closing(Server(request.param)) as server:
        yield server


def manager_at(server: Server, driver: str) -> ConnectionManager:
    """Return a manager that would log in at *server*; not opened."""
    credentials = Credentials("u", Password(PASSWORD), "v1", "127.0.0.1", server.port, "d")
    settings = Settings(
        **choice_of(driver),
        database_sslmode="disable",
        database_target="any",
        startup_timeout_seconds=1,
        connect_timeout_seconds=1,
    )
    return ConnectionManager(settings, database_source=StaticSource(credentials))


@pytest.mark.parametrize("driver", DRIVERS)
def test_no_frame_of_a_failed_start_shows_it(odd: Server, driver: str) -> None:
    """Whatever a server answers, the error of the start can be reported with all that debuggers show."""
    manager = manager_at(odd, driver)
    with pytest.raises(LedgerDBError) as failed:
        if is_on_loop(driver):
            asyncio.run(manager.async_open())
        else:
            manager.open()

    assert shown_in(failed.value) == []


@pytest.mark.parametrize("end", ["time limit", "cancelled", "group"])
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg-async"])
async def test_no_frame_of_a_cancelled_login_shows_it(silent: Server, driver: str, end: str) -> None:
    """Neither a time limit of the caller's, nor a task that is cancelled, nor one in a group."""
    engine = await async_engine_at(silent, driver)

    async def use() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def use_in_time() -> None:
        async with asyncio.timeout(0.3):
            await use()

    async def use_and_cancel() -> None:
        task = asyncio.ensure_future(use())
        await asyncio.to_thread(silent.asked.wait, 10)
        task.cancel()
        await task

    async def use_in_a_group() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(use_in_time())

    ways = {"time limit": use_in_time, "cancelled": use_and_cancel, "group": use_in_a_group}
    with pytest.raises(BaseException) as failed:  # noqa: PT011 - whatever it is
        await ways[end]()

    assert shown_in(failed.value) == []


async def async_engine_at(server: Server, driver: str) -> Any:
    """Return the engine of a manager that was not opened, because its server lets nobody in."""
    manager = manager_at(server, driver)
    database: Any = manager._database
    database.provider.load()
    return database.async_engine


@pytest.mark.parametrize(
    "fields",
    [{"pool_size": 0}, {"database_url": "postgresql://u:p@h/d"}, {"database_iam_auth": True}, {"unknown": 1}],
    ids=str,
)
def test_no_frame_of_settings_that_are_refused_shows_it(fields: dict[str, Any]) -> None:
    """Whatever is wrong with another of them."""
    with pytest.raises(LedgerDBError) as failed:
        Settings(database_password=PASSWORD, database_user="u", database_host="h", **fields)

    assert shown_in(failed.value) == []


def test_nor_of_such_as_the_environment_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where nothing was passed."""
    monkeypatch.setenv("LEDGER_DB_REDIS_PASSWORD", PASSWORD)
    monkeypatch.setenv("LEDGER_DB_POOL_SIZE", "many")
    with pytest.raises(LedgerDBError) as failed:
        Settings()

    assert shown_in(failed.value) == []


@pytest.mark.parametrize(
    "document",
    [
        json.dumps({"password": PASSWORD}),
        json.dumps({"username": "u", "password": PASSWORD, "host": 7}),
        json.dumps({"username": "u", "password": PASSWORD, "host": "h", "port": "many"}),
        json.dumps([PASSWORD]),
        f'{{"password": "{PASSWORD}"',
        PASSWORD,
    ],
    ids=["fields missing", "host", "port", "list", "cut off", "no JSON"],
)
def test_no_frame_of_a_secret_that_is_refused_shows_it(environment: Sandbox, document: str) -> None:
    """Neither in a service nor in a rotation, which read it by the same code."""
    name = f"test/frames-{uuid.uuid4()}"
    with closing(new_client(environment)) as client:
        client.create_secret(Name=name, SecretString=document)
        try:
            with pytest.raises(LedgerDBError) as failed:
                SecretsManagerSource(name, "PostgreSQL").fetch("AWSCURRENT")
        finally:
            client.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)

    assert shown_in(failed.value) == []


@pytest.mark.parametrize(
    "thing",
    [
        Password(PASSWORD),
        Credentials("u", Password(PASSWORD), "v1", "h", 1, "d"),
        Secret("name", "v1", {"password": PASSWORD}),
        Settings(database_password=PASSWORD, database_user="u", database_host="h"),
        Settings(redis_password=PASSWORD, redis_host="h"),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_nothing_that_holds_it_is_pickled(thing: object) -> None:
    """A queue, a cache or a file would keep it; what to do instead is said."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="read the secret, or its environment, itself"):
            pickle.dumps(thing, protocol)


def test_what_holds_it_can_be_copied() -> None:
    """A copy in the same process shows no more than the first."""
    credentials = Credentials("u", Password(PASSWORD), "v1", "h", 1, "d")

    assert copy.deepcopy(credentials) == copy.copy(credentials) == credentials
    assert PASSWORD not in repr(copy.deepcopy(credentials))
    settings = Settings(database_password=PASSWORD, database_user="u", database_host="h")
    assert copy.deepcopy(settings) == settings.model_copy() == settings


def test_settings_without_a_password_can_be_pickled() -> None:
    """A process that is started anew may be given them."""
    settings = Settings(database_secret_id="prod/ledger", pool_size=3)

    assert pickle.loads(pickle.dumps(settings)) == settings


@pytest.mark.parametrize("kind", ["postgres", "redis"])
def test_no_frame_of_a_rotation_shows_it(odd: Server, kind: str) -> None:
    """The function logs in by itself."""
    fields = {"username": "u", "password": PASSWORD, "host": "127.0.0.1", "port": odd.port, "dbname": "d"}
    secret, deadline = Secret("name", "v1", fields), Deadline.after(5)
    with pytest.raises(ServerProblem) as failed:
        if kind == "postgres":
            with postgres_login.session(secret, TLS(), deadline):
                pass
        else:
            (node,) = redis_login.nodes_of(secret)
            with redis_login.logged_in(node, secret, TLS(), deadline):
                pass

    assert shown_in(failed.value) == []
