"""Does a client hear the same of a failure with every driver, and nothing that is not its business?"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import closing
from unittest import mock

import httpx
import pytest
from sqlalchemy import text

from ledger_db import Settings
from ledger_db.fastapi import manager_of
from ledger_db.fastapi.problem_model import Problem
from ledger_db.sandbox import Sandbox
from tests.support.any_driver import DRIVERS
from tests.support.asgi import Served, serving
from tests.support.commit_cutter import CommitCutter
from tests.support.events import event_of, fields_of
from tests.support.problem_service import CANARY, CASES, Expected, create_service, problem_tables
from tests.support.rotations import own_secret


@pytest.fixture(scope="module")
def tables(box: Sandbox) -> Iterator[None]:
    """The tables that the cases are about."""
    with problem_tables(box):
        yield


def not_for_clients(box: Sandbox) -> set[str]:
    """Return what no answer may have in it."""
    with closing(box.client()) as client:
        secret = json.loads(client.get_secret_value(SecretId=box.database_secret_id)["SecretString"])
    connection = {str(secret[field]) for field in ("username", "password", "host", "port")}
    return connection | {
        CANARY,
        CANARY[-9:],
        "INSERT",
        "SELECT",
        "SELEKT",
        "problem_parent ",
        "pg_authid",
        "psycopg",
    }


def told(answer: httpx.Response) -> Expected:
    """Return what *answer* tells a client."""
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == answer.status_code
    return Expected(
        answer.status_code,
        problem["type"].removeprefix("urn:ledger-db:problem:"),
        problem.get("constraint"),
        answer.headers.get("retry-after"),
    )


@pytest.mark.usefixtures("tables")
async def test_each_failure_has_the_same_answer_on_every_driver(
    box: Sandbox, settings: Settings, driver: str
) -> None:
    """Whatever PostgreSQL refuses, the client hears the same of it, and which constraint it was."""
    answers = {}
    async with serving(create_service(box, settings, driver)) as served:
        for case in CASES:
            answers[case] = await served.client.post(f"/cases/{case}")

    assert {case: told(answer) for case, answer in answers.items()} == {
        case: expected for case, (_, expected) in CASES.items()
    }


@pytest.mark.usefixtures("tables")
async def test_an_answer_has_nothing_in_it_that_is_not_the_clients(
    box: Sandbox, settings: Settings, driver: str
) -> None:
    """No value of a row, no statement, no address, no user, no driver's text."""
    secrets = not_for_clients(box)
    async with serving(create_service(box, settings, driver)) as served:
        for case in CASES:
            answer = await served.client.post(f"/cases/{case}")
            shown = answer.text + repr(answer.headers)

            assert [secret for secret in secrets if secret in shown] == [], case


@pytest.mark.usefixtures("tables")
async def test_the_log_has_each_failure_once_and_no_value_of_a_row(
    box: Sandbox, settings: Settings, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Who is called at night finds the one line by what the client was told, and in it no customer's data."""
    with caplog.at_level(logging.DEBUG, "ledger_db.fastapi"):
        async with serving(create_service(box, settings, driver)) as served:
            for case, (_, expected) in CASES.items():
                caplog.clear()
                answer = await served.client.post(f"/cases/{case}")

                (record,) = [r for r in caplog.records if r.name == "ledger_db.fastapi.problems"]
                shown = logging.Formatter().format(record) + repr(record.__dict__)
                logged = {"path": "/cases/{case}", "status": expected.status, "problem": expected.kind}
                assert logged.items() <= fields_of(record).items()
                assert fields_of(record).get("instance") == answer.json().get("instance")
                assert record.levelno == level_of(expected)
                assert CANARY[-9:] not in shown.replace(str(record.process), "").replace(
                    str(record.thread), ""
                ), case


def level_of(expected: Expected) -> int:
    """Return the level at which a failure is logged: who sent wrong data is nobody's alarm."""
    if expected.status < 500:
        return logging.DEBUG
    return logging.ERROR if expected.status == 500 else logging.WARNING


@pytest.mark.usefixtures("tables")
async def test_the_log_of_a_fault_leads_to_the_line_that_made_it(
    box: Sandbox, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake in a statement is found by the traceback and the statement, without its values."""
    async with serving(create_service(box, settings, "psycopg2")) as served:
        await served.client.post("/cases/undefined table")

    (record,) = [r for r in caplog.records if event_of(r) == "request.failed"]
    shown = logging.Formatter().format(record)
    assert "in do" in shown
    assert "problem_service.py" in shown
    assert "[SQL: SELECT * FROM problem_nowhere]" in shown
    assert 'relation "problem_nowhere" does not exist' in shown


@pytest.mark.usefixtures("tables")
async def test_a_client_is_told_that_nobody_knows_whether_it_was_stored(
    box: Sandbox, settings: Settings, driver: str
) -> None:
    """When the answer to COMMIT is lost, the client must look before it sends the same again."""
    with CommitCutter(box.postgres.host, box.postgres.port) as cutter:
        settings = settings.model_copy(update={"database_port": cutter.port})
        async with serving(create_service(box, settings, driver)) as served:
            cutter.arm("after")
            answer = await served.client.post("/cases/a row")

    assert told(answer) == Expected(500, "outcome-unknown")
    assert "Find out whether it was" in answer.json()["detail"]


@pytest.mark.usefixtures("tables")
async def test_a_client_that_finds_no_connection_free_is_told_when_to_come_back(
    box: Sandbox, settings: Settings, driver: str
) -> None:
    """With every connection held, the next request hears so after the time that it may wait."""
    small = {"pool_size": 1, "max_overflow": 0, "pool_timeout_seconds": 0.1}
    app = create_service(box, settings.model_copy(update=small), driver)
    async with serving(app) as served:
        db = manager_of(app)
        if driver in {"psycopg2", "psycopg"}:
            with db.begin() as session:
                session.execute(text("SELECT 1"))
                answer = await served.client.post("/cases/a row")
        else:
            async with db.async_begin() as async_session:
                await async_session.execute(text("SELECT 1"))
                answer = await served.client.post("/cases/a row")

    assert told(answer) == Expected(503, "saturated", retry_after="1")


async def test_a_client_of_a_service_that_is_refused_is_not_told_to_come_back(
    environment: Sandbox, settings: Settings, driver: str
) -> None:
    """A password that only a person can mend is no reason to try again in a second."""
    with own_secret(environment, "single-user") as rotations:
        own = {
            "database_secret_id": rotations.secret_id,
            "login_patience_seconds": 0.2,
            "redis_secret_id": None,
        }
        with mock.patch.dict(os.environ):
            del os.environ["LEDGER_DB_REDIS_SECRET_ID"]
            app = create_service(environment, Settings(**own), driver)
            async with serving(app) as served:
                user = rotations.value()["username"]
                rotations.execute(f"ALTER ROLE {user} PASSWORD 'another one'")
                rotations.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", user
                )
                answers = [await served.client.post("/cases/undefined table") for _ in range(2)]

    assert told(answers[-1]) == Expected(503, "login-refused")
    assert user not in answers[-1].text


async def test_a_client_of_a_database_that_is_down_is_told_when_to_come_back() -> None:
    """No connection of the old server is lent, none can be made, and all hear so at once."""
    with Sandbox() as own, mock.patch.dict(os.environ, own.environment):
        answers = {driver: await answers_while_down(own, driver) for driver in DRIVERS}

    down = Expected(503, "unavailable", retry_after="5")
    assert answers == {driver: [down, down, down] for driver in DRIVERS}


async def answers_while_down(own: Sandbox, driver: str) -> list[Expected]:
    """Stop the server under a service, and return what clients are told."""
    async with serving(create_service(own, Settings(), driver)) as served:
        await warm(served)
        own.postgres.kill()
        answers = [await served.client.post("/cases/a row") for _ in range(3)]
        own.postgres.start()
    assert all("127.0.0.1" not in answer.text for answer in answers)
    return [told(answer) for answer in answers]


async def warm(served: Served) -> None:
    """Let the pool have one connection."""
    await served.client.post("/cases/undefined table")


@pytest.mark.usefixtures("tables")
async def test_each_answer_is_as_documented(box: Sandbox, settings: Settings) -> None:
    """OpenAPI has every status and every field, and the media type is the one of RFC 9457."""
    async with serving(create_service(box, settings, "psycopg2")) as served:
        documented = (await served.client.get("/openapi.json")).json()
        answers = [await served.client.post(f"/cases/{case}") for case in CASES]

    responses = documented["paths"]["/cases/{case}"]["post"]["responses"]
    for answer in answers:
        schema = responses[str(answer.status_code)]["content"][answer.headers["content-type"]]["schema"]
        assert schema["title"] == "Problem"
        assert answer.json().keys() <= schema["properties"].keys()
        Problem.model_validate(answer.json(), strict=True)
