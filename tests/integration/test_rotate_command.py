"""Does `ledger-db rotate` do what a person at a terminal expects?"""

import json
from contextlib import closing
from typing import Any

import pytest
from redis.exceptions import AuthenticationError

from ledger_db.operate import cli
from ledger_db.rotation.postgres import PostgresAlternatingRotator
from ledger_db.sandbox import Sandbox
from tests.support.rotations import Rotations, new_token, own_secret


def typed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Type a command; return its status and what it has printed, errors included."""
    status = cli.main(["rotate", *arguments])
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def test_a_secret_is_rotated(pair: Rotations, capsys: pytest.CaptureFixture[str]) -> None:
    """Four steps, a line each, under the version that they make."""
    status, printed = typed(capsys, pair.secret_id)

    assert status == 0
    assert printed.splitlines() == [
        f"{pair.secret_id}: version {pair.labels()['AWSCURRENT']}",
        "  createSecret: done",
        "  setSecret: done",
        "  testSecret: done",
        "  finishSecret: done",
    ]
    assert pair.logs_in()


def test_the_rules_for_passwords_are_those_of_the_function(
    pair: Rotations, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the same variables; a wrong one is named before anything is done."""
    monkeypatch.setenv("PASSWORD_LENGTH", "20")
    monkeypatch.setenv("EXCLUDE_PUNCTUATION", "true")
    assert typed(capsys, pair.secret_id)[0] == 0
    password, labels = pair.value()["password"], pair.labels()
    monkeypatch.setenv("EXCLUDE_PUNCTUATION", "perhaps")
    status, printed = typed(capsys, pair.secret_id)

    assert len(password) == 20
    assert password.isalnum()
    assert (status, "EXCLUDE_PUNCTUATION" in printed) == (1, True)
    assert pair.labels() == labels
    assert pair.logs_in()


def test_steps_can_be_done_one_by_one(pair: Rotations, capsys: pytest.CaptureFixture[str]) -> None:
    """With the token of the first for the others."""
    token = new_token()
    for step in ("createSecret", "setSecret", "testSecret", "finishSecret"):
        assert typed(capsys, pair.secret_id, "--step", step, "--token", token)[0] == 0

    assert pair.labels()["AWSCURRENT"] == token


def test_a_dry_run_reports_and_changes_nothing(pair: Rotations, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 0 if everything is good."""
    labels = pair.labels()

    status, printed = typed(capsys, pair.secret_id, "--dry-run")

    assert status == 0
    assert printed.splitlines() == [
        "strategy: postgres-alternating",
        f"  AWSCURRENT   {labels['AWSCURRENT']}  ok",
    ]
    assert labels == pair.labels()


def test_a_dry_run_finds_drift_and_what_is_stuck(pair: Rotations, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 3 if something is not as it should be; each finding is a line."""
    pair.execute(f"ALTER ROLE {pair.value()['username']} CONNECTION LIMIT 9")
    pair.step("createSecret", new_token())

    status, printed = typed(capsys, pair.secret_id, "--dry-run")

    assert status == 3
    assert "has CONNECTION LIMIT -1, not 9" in printed
    assert "AWSPENDING" in printed
    assert "the server refused the password" in printed


def test_a_dry_run_names_what_was_cut_off_as_it_began(
    pair: Rotations, capsys: pytest.CaptureFixture[str]
) -> None:
    """A version without AWSPENDING is in nobody's way, and a repair takes its label."""
    pair.client.put_secret_value(
        SecretId=pair.secret_id, SecretString=json.dumps(pair.value()), VersionStages=["ledger_db.made"]
    )

    status, printed = typed(capsys, pair.secret_id, "--dry-run")

    assert status == 0
    assert "left by a rotation that was given up" in printed
    typed(capsys, pair.secret_id, "--repair")
    assert pair.labels().keys() == {"AWSCURRENT"}


def test_a_stuck_rotation_is_repaired(pair: Rotations, capsys: pytest.CaptureFixture[str]) -> None:
    """One that nobody goes on with is in the way of the next, until it is repaired."""
    stuck = new_token()
    pair.step("createSecret", stuck)

    status, printed = typed(capsys, pair.secret_id)
    assert status == 13
    assert stuck in printed
    assert "--repair" in printed

    assert typed(capsys, pair.secret_id, "--repair") == (0, f"{pair.secret_id}: abandoned\n")
    assert typed(capsys, pair.secret_id)[0] == 0


def test_no_password_is_printed(pair: Rotations, capsys: pytest.CaptureFixture[str]) -> None:
    """Not by any way of the command."""
    passwords = {pair.value()["password"]}
    printed = typed(capsys, pair.secret_id)[1]
    passwords.add(pair.value()["password"])
    printed += typed(capsys, pair.secret_id, "--dry-run")[1] + typed(capsys, pair.secret_id, "--repair")[1]

    assert len(passwords) == 2
    assert not [password for password in passwords if password in printed]


def test_a_secret_that_does_not_exist_is_named(
    environment: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the status for what Secrets Manager denies."""
    status, printed = typed(capsys, "no/such/secret")

    assert status == 17
    assert "createSecret of no/such/secret: DescribeSecret of Secrets Manager answered Resource" in printed
    assert "To go on" not in printed
    assert "To undo" not in printed


def test_the_rotation_of_somebody_else_is_not_gone_on_with(
    pair: Rotations, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only what can work is advised: that version will never be the next one."""
    pair.step("createSecret", new_token())

    status, printed = typed(capsys, pair.secret_id)

    assert status == 13
    assert "of another rotation; nothing was changed; let that one end, or end it with" in printed
    assert "To go on" not in printed


def test_a_rotation_that_stops_says_how_to_go_on(
    pair: Rotations, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever presses Ctrl-C half way is told with which command the rest is done."""

    def press(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PostgresAlternatingRotator, "apply", press)
    status, printed = typed(capsys, pair.secret_id)
    version = pair.labels()["AWSPENDING"]

    assert status != 0
    assert f"ledger-db rotate {pair.secret_id} --token {version}" in printed
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(["--step", "setSecret"], "needs --token"), (["--token", "nope"], "--token is the id of a version")],
)
def test_a_token_is_asked_for_before_anything_is_done(
    pair: Rotations, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    """A mistyped command is one, and no rotation."""
    status, printed = typed(capsys, pair.secret_id, *arguments)

    assert status == 2
    assert expected in printed
    assert pair.labels().keys() == {"AWSCURRENT"}


def test_ways_exclude_each_other(pair: Rotations, capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run that repairs is neither."""
    assert typed(capsys, pair.secret_id, "--dry-run", "--repair")[0] == 2


def test_the_overlap_of_a_redis_rotation_can_be_ended(
    environment: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """The password before AWSCURRENT logs in until it is retired; AWSCURRENT is not touched."""
    with closing(environment.client()) as client:
        before = login_of(client, environment.redis_secret_id)
        environment.rotate_redis()
        now = login_of(client, environment.redis_secret_id)
    assert logs_in(environment, before)

    status, printed = typed(capsys, environment.redis_secret_id, "--retire", "--sslmode", "disable")

    assert (status, printed) == (0, f"{environment.redis_secret_id}: only AWSCURRENT logs in\n")
    assert logs_in(environment, now)
    assert not logs_in(environment, before)


def test_what_a_pair_s_older_password_opens_is_told(
    pair: Rotations, capsys: pytest.CaptureFixture[str]
) -> None:
    """AWSPREVIOUS logs in until the next rotation: nothing is changed, and the way to end it is named."""
    assert typed(capsys, pair.secret_id, "--retire") == (0, f"{pair.secret_id}: there is no AWSPREVIOUS\n")
    pair.run()
    previous, labels = pair.value("AWSPREVIOUS")["username"], pair.labels()

    status, printed = typed(capsys, pair.secret_id, "--retire")

    assert status == 3
    assert f"AWSPREVIOUS logs in, as {previous}, until the next rotation" in printed
    assert f"'ledger-db rotate {pair.secret_id} --compromised' after a leak" in printed
    assert labels == pair.labels()
    assert pair.logs_in("AWSPREVIOUS")


@pytest.mark.parametrize("strategy", ["postgres-single", "postgres-alternating"])
def test_an_older_password_that_is_dead_is_called_so(
    environment: Sandbox, capsys: pytest.CaptureFixture[str], strategy: str
) -> None:
    """Only after the server has refused it: with one role each rotation sees to that."""
    with own_secret(environment, strategy) as rotations:
        rotations.run()
        if strategy == "postgres-alternating":
            rotations.execute(f"ALTER ROLE {rotations.value('AWSPREVIOUS')['username']} PASSWORD 'another-0'")
        status, printed = typed(capsys, rotations.secret_id, "--retire", "--strategy", strategy)

        assert (status, printed) == (
            0,
            f"{rotations.secret_id}: the server refuses the password in AWSPREVIOUS already\n",
        )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"note": "by hand"}, "it holds the password that AWSCURRENT holds"),
        ({"password": "typed-by-hand-0"}, "so the server does not have AWSCURRENT's"),
    ],
)
def test_a_version_that_was_put_by_hand_is_told_apart(
    environment: Sandbox, capsys: pytest.CaptureFixture[str], change: dict[str, str], told: str
) -> None:
    """AWSPREVIOUS may be the same login, or the one that the server still has; each has its own advice."""
    with own_secret(environment, "postgres-single") as rotations:
        rotations.put(lambda value: {**value, **change})
        status, printed = typed(capsys, rotations.secret_id, "--retire", "--strategy", "postgres-single")

        assert status == 3
        assert told in printed
        assert "typed-by-hand-0" not in printed


def test_a_pair_that_became_one_role_leaves_the_other_to_a_person(
    pair: Rotations, capsys: pytest.CaptureFixture[str]
) -> None:
    """No rotation of one role ends what the other one opens."""
    pair.run()

    status, printed = typed(capsys, pair.secret_id, "--retire", "--strategy", "postgres-single")

    assert status == 3
    assert "whom this strategy never touches" in printed


def test_whether_an_older_password_lives_is_not_guessed(
    environment: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """A role that may not log in at all says nothing about its password."""
    with own_secret(environment, "postgres-alternating") as rotations:
        rotations.run()
        rotations.execute(f"ALTER ROLE {rotations.value('AWSPREVIOUS')['username']} NOLOGIN")

        assert typed(capsys, rotations.secret_id, "--retire")[0] == 30


@pytest.mark.parametrize("arguments", [(), ("--dry-run",), ("--repair",), ("--retire",)])
def test_without_a_region_it_says_what_to_set(
    arguments: tuple[str, ...],
    environment: Sandbox,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A terminal that is not set up for AWS is told so, in a sentence and not in a traceback."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_SECRETS_MANAGER"):
        monkeypatch.delenv(name)
    status, printed = typed(capsys, environment.database_secret_id, *arguments)

    assert status == 1
    assert "set AWS_REGION" in printed
    assert "Traceback" not in printed


def login_of(client: Any, secret_id: str) -> dict[str, str]:
    """Return user and password of AWSCURRENT."""
    secret = json.loads(client.get_secret_value(SecretId=secret_id)["SecretString"])
    return {"username": secret["username"], "password": secret["password"]}


def logs_in(box: Sandbox, login: dict[str, str]) -> bool:
    """Whether Valkey takes *login*."""
    with closing(box.redis.connect(**login)) as connection:
        try:
            return bool(connection.ping())
        except AuthenticationError:
            return False
