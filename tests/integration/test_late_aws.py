"""Is whoever gives a role's credentials waited for, and named if nothing comes?"""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from ledger_db import (
    ConfigurationError,
    ConnectionManager,
    CredentialsUnavailable,
    RdsIamSource,
    SecretsManagerSource,
    Settings,
)
from ledger_db.connections.startup import check
from ledger_db.credentials.model import CredentialSource
from ledger_db.sandbox import Sandbox
from tests.support.any_driver import choice_of, is_on_loop
from tests.support.role_givers import (
    AGENT,
    METADATA,
    STS,
    Answers,
    Role,
    Start,
    free_port,
    gives,
    keys,
    late,
    silence,
    sts_refuses,
)
from tests.support.waiting import eventually

ENDPOINT = "AWS_ENDPOINT_URL_SECRETS_MANAGER"
SECONDS = 25.0

# Who gives, and what it does before it does.
LATE: list[tuple[str, str, Answers]] = [
    ("agent: throttled", AGENT, late(8, 429)),
    ("agent: restarting", AGENT, late(8, 500)),
    ("agent: role unknown", AGENT, late(4, 404)),
    ("agent: no JSON", AGENT, late(4, 200, "<html>")),
    ("metadata: busy", METADATA, late(3, 503)),
    ("metadata: no role yet", METADATA, late(4, 404)),
    ("metadata: role without keys", METADATA, late(4, 200, '{"Code": "Failed", "Message": "later"}')),
    ("sts: provider away", STS, late(12, 400, sts_refuses("IDPCommunicationError"))),
    ("sts: trust unknown", STS, late(3, 403, sts_refuses("AccessDenied"))),
    ("sts: provider unknown", STS, late(3, 400, sts_refuses("InvalidIdentityToken"))),
    ("sts: token expired", STS, late(3, 400, sts_refuses("ExpiredTokenException"))),
    ("sts: its own fault", STS, late(6, 503, sts_refuses("InternalFailure"))),
]


@pytest.fixture(params=["secret", "token"])
def source(request: pytest.FixtureRequest, environment: Sandbox) -> CredentialSource:
    """Whatever asks AWS for credentials of a server."""
    if request.param == "token":
        return RdsIamSource("app", "db.example")
    return SecretsManagerSource(environment.database_secret_id, "PostgreSQL")


def read(source: CredentialSource, seconds: float = SECONDS) -> None:
    """Read *source* as a start does."""
    check(source.name, lambda: source.fetch("AWSCURRENT"), timeout_seconds=seconds)


@pytest.mark.parametrize(("variable", "answer"), [each[1:] for each in LATE], ids=[each[0] for each in LATE])
def test_who_gives_the_role_is_waited_for(
    role: Role,
    source: CredentialSource,
    start_giver: Start,
    variable: str,
    answer: Answers,
) -> None:
    """An agent, a metadata service or STS that is not ready is no mistake of anybody's."""
    server = start_giver(answer)
    role.by(variable, server.url)

    read(source)

    assert server.asked > 3


@pytest.mark.parametrize("variable", [AGENT, METADATA, STS])
def test_who_does_not_listen_yet_is_waited_for(
    role: Role, source: CredentialSource, start_giver: Start, variable: str
) -> None:
    """A sidecar that starts after the service."""
    port = free_port()
    role.by(variable, f"http://127.0.0.1:{port}")
    timer = threading.Timer(1.0, start_giver, [lambda path, count: gives(path), port])
    timer.start()

    read(source)

    timer.join()


def test_a_token_that_is_mounted_late_is_waited_for(
    role: Role, source: CredentialSource, start_giver: Start
) -> None:
    """The file is not there when the process starts."""
    role.by(STS, start_giver(lambda path, count: gives(path)).url, token=None)
    timer = threading.Timer(1.0, role.token.write_text, ["x.y.z"])
    timer.start()

    read(source)

    timer.join()


@pytest.mark.parametrize("failure", ["sys.exit('not yet')", "print('not yet'); sys.exit()"])
def test_a_process_that_fails_at_first_is_waited_for(
    role: Role, source: CredentialSource, tmp_path: Path, failure: str
) -> None:
    """Its exit status, or what it printed instead of credentials."""
    mark = tmp_path / "ready"
    role.by_process(
        f"import pathlib, sys\nmark = pathlib.Path({str(mark)!r})\n"
        f"if not mark.exists():\n    mark.touch()\n    {failure}\nprint({keys()!r})\n"
    )

    read(source)

    assert mark.exists()


def sso(role: Role) -> None:
    """A person who has not signed in."""
    role.profile(
        "sso_start_url = https://nowhere.example/start\nsso_region = us-east-1\n"
        "sso_account_id = 123456789012\nsso_role_name = somebody\n"
    )


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda role: None, "there are no AWS credentials"),
        (sso, "the AWS session has expired"),
        (lambda role: role.set(AWS_ACCESS_KEY_ID="half"), "there are no AWS credentials"),
        (lambda role: role.set(AWS_PROFILE="nobody"), "the AWS settings of this process are wrong"),
        (lambda role: role.by(AGENT, "http://agent.example"), "the AWS settings of this process are wrong"),
    ],
    ids=["nothing", "sso", "half a key", "no such profile", "an agent elsewhere"],
)
def test_what_a_person_has_to_mend_is_not_waited_for(
    role: Role, source: CredentialSource, prepare: Callable[[Role], None], words: str
) -> None:
    """An empty chain, a session that has ended, and settings that cannot be right fail at once."""
    prepare(role)
    began = time.monotonic()
    with pytest.raises(ConfigurationError, match=words):
        read(source, seconds=60)

    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("variable", "party"),
    [
        (AGENT, "the role's credentials did not come from the container agent ("),
        (METADATA, "the role's credentials did not come from the instance metadata service ("),
        (STS, "sts:AssumeRoleWithWebIdentity answered "),
    ],
)
def test_who_never_gives_is_named(
    role: Role, source: CredentialSource, start_giver: Start, variable: str, party: str
) -> None:
    """Secrets Manager was not asked, and is not said to have been."""
    body = sts_refuses("AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity")
    server = start_giver(late(999, 403, body))
    role.by(variable, server.url)
    with pytest.raises(CredentialsUnavailable) as raised:
        read(source, seconds=4)

    assert party in str(raised.value)
    assert ", not asked yet for " in str(raised.value)
    assert variable != STS or "AWS says: Not authorized to perform sts:Assume" in str(raised.value)


def test_a_file_that_never_comes_is_named(role: Role, source: CredentialSource) -> None:
    """The token that the environment names."""
    role.by(STS, "http://127.0.0.1:1", token=None)
    with pytest.raises(CredentialsUnavailable) as raised:
        read(source, seconds=3)

    assert f"did not come from the file {role.token} (" in str(raised.value)


def start(driver: str, settings: Settings) -> None:
    """Open a manager on *driver*, and ask for a row."""
    manager = ConnectionManager(Settings(**{**settings.model_dump(exclude_unset=True), **choice_of(driver)}))
    if not is_on_loop(driver):
        with manager as db, db.session() as session:
            session.execute(text("SELECT 1"))
        return

    async def go() -> None:
        async with manager as db, db.async_session() as session:
            await session.execute(text("SELECT 1"))

    asyncio.run(go())


def only_database(box: Sandbox, seconds: float) -> Settings:
    """Settings of a service without Redis."""
    return Settings(
        database_secret_id=box.database_secret_id, redis_secret_id=None, startup_timeout_seconds=seconds
    )


@pytest.mark.parametrize("driver", ["psycopg2", "asyncpg"])
def test_a_start_waits_for_the_role(
    environment: Sandbox, role: Role, start_giver: Start, driver: str
) -> None:
    """From the agent to the first row."""
    role.by(AGENT, start_giver(late(5, 429)).url)

    start(driver, only_database(environment, SECONDS))


def silent_process(role: Role, url: str) -> None:
    """A credential process that never ends."""
    role.by_process("import time\ntime.sleep(6)\n")


@pytest.mark.parametrize("driver", ["psycopg2", "asyncpg"])
@pytest.mark.parametrize(
    ("prepare", "party"),
    [
        (lambda role, url: role.set(**{ENDPOINT: url, "AWS_ACCESS_KEY_ID": "a"}), "Secrets Manager"),
        (lambda role, url: role.by(STS, url), "STS"),
        (lambda role, url: role.by(AGENT, url), "the container agent"),
        (lambda role, url: role.by(METADATA, url), "the instance metadata service"),
        (silent_process, "the credential process"),
    ],
    ids=["secretsmanager", "sts", "agent", "metadata", "process"],
)
def test_who_is_silent_is_named_whichever_clock_ends_first(
    environment: Sandbox, role: Role, driver: str, prepare: Callable[[Role, str], None], party: str
) -> None:
    """The start's own time is up in the middle of a read: PostgreSQL has nothing to do with it."""
    role.set(AWS_SECRET_ACCESS_KEY="b")
    with silence() as url, pytest.raises(CredentialsUnavailable) as raised:
        prepare(role, url)
        start(driver, only_database(environment, 3))

    said = str(raised.value)
    assert f"{environment.database_secret_id!r} was not read, still waiting for {party}; " in said
    assert "startup did not end within 3.0 s" in said


@pytest.mark.parametrize(
    ("variable", "status", "body"),
    # Of a metadata service that is busy botocore keeps the keys itself, for a quarter of an hour.
    [(AGENT, 500, "restarting"), (STS, 403, sts_refuses("AccessDenied"))],
)
def test_a_role_that_is_not_renewed_in_time_is_no_permanent_problem(
    environment: Sandbox,
    role: Role,
    start_giver: Start,
    variable: str,
    status: int,
    body: str,
) -> None:
    """A running service goes on, says what it is, and all is well once it has passed."""
    away = threading.Event()

    def answer(path: str, count: int) -> tuple[int, str]:
        if away.is_set():
            return status, body
        # So short that it is renewed for each read.
        said = gives(path)
        if said[1].startswith("{"):
            return 200, keys(minutes=0.5)
        return 200, said[1].replace("2099-01-01T00:00:00Z", _soon())

    role.by(variable, start_giver(answer).url)
    settings = only_database(environment, SECONDS)
    with closing(ConnectionManager(settings).open()) as db:
        away.set()
        db.look_now()
        eventually(lambda: db.health().servers[0].credentials.failures > 0, "the read fails")
        seen = db.health().servers[0]
        assert not seen.credentials.permanent
        assert seen.ok
        assert "not asked yet for" in str(seen.credentials.problem)

        away.clear()
        eventually(lambda: db.health().servers[0].credentials.problem is None, "it has passed")


def _soon() -> str:
    """When credentials end that are to be renewed at once."""
    return str(keys(minutes=0.5).split('"Expiration": "')[1].split('"')[0])
