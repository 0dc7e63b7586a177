"""Can any sequence of steps, crashes, faults and interference lock an application out?"""

import json
from dataclasses import replace
from pathlib import Path

import psycopg2
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from ledger_db.rotation.passwords import new_password
from ledger_db.rotation.steps import STEPS
from ledger_db.sandbox import Sandbox
from ledger_db.stand_in.faults import (
    Fault,
    access_denied,
    dropped,
    lost_answer,
    pending_without_value,
    rubbish,
    throttled,
    unavailable,
)
from tests.support.crashes import Boundaries, watched_postgres
from tests.support.interference import EXAMPLES, Interference, die, interfere
from tests.support.rotations import new_client, new_token, own_secret

FAULTS = [
    access_denied(times=1),
    dropped(),
    lost_answer("PutSecretValue"),
    lost_answer("UpdateSecretVersionStage"),
    pending_without_value(times=1),
    rubbish(),
    throttled(),
    unavailable(),
]


class InterferenceOfPostgres(Interference):
    """
    What must hold whatever happens.

    AWSCURRENT is on exactly one version; in the alternating strategy it logs in at
    every moment; in the single-user strategy some version does.  And at the end, with the faults gone,
    ``repair`` makes everything good.
    """

    strategy: str
    passwords: set[str]

    def __init__(self) -> None:
        super().__init__()
        self.client = new_client(self.box, attempts=1)
        self.careful = new_client(self.box)
        self.secret = own_secret(self.box, self.strategy)
        self.rotations = replace(self.secret.__enter__(), client=self.careful, visible_seconds=0.0)
        self.server = self.box.postgres

    @initialize()
    def begin(self) -> None:
        """Start with a rotation that went well, so that there is an AWSPREVIOUS."""
        self.tokens.append(self.rotations.run())

    @rule(step=st.sampled_from(STEPS), faults=st.lists(st.sampled_from(FAULTS), min_size=1, max_size=3))
    def do_step_with_faults(self, step: str, faults: list[Fault]) -> None:
        """Secrets Manager calls a step, and does not answer as it should."""
        self.box.secrets_manager.inject(*faults)
        self.step(step, self.tokens[-1])
        self.box.secrets_manager.clear_faults()

    @rule(step=st.sampled_from(STEPS), fatal=st.integers(1, 26))
    def crash_in_step(self, step: str, fatal: int) -> None:
        """The process dies at some call."""
        boundaries = Boundaries(fatal, die=die)
        self.crash(step, boundaries, watched_postgres(boundaries))

    @rule()
    def write_pending(self) -> None:
        """Somebody else puts a version with AWSPENDING."""
        token = new_token()
        self.careful.put_secret_value(
            SecretId=self.rotations.secret_id,
            ClientRequestToken=token,
            SecretString=json.dumps({"host": "evil.example", "username": "x", "password": new_password()}),
            VersionStages=["AWSPENDING"],
        )

    @precondition(lambda self: self.is_up)
    @rule()
    def roll_back(self) -> None:
        """Somebody moves AWSCURRENT back by hand, to a version that logs in."""
        labels = self.rotations.labels()
        if "AWSPREVIOUS" in labels and self.logs_in(labels["AWSPREVIOUS"]):
            self.careful.update_secret_version_stage(
                SecretId=self.rotations.secret_id,
                VersionStage="AWSCURRENT",
                MoveToVersionId=labels["AWSPREVIOUS"],
                RemoveFromVersionId=labels["AWSCURRENT"],
            )

    @invariant()
    def somebody_logs_in(self) -> None:
        """Nobody is locked out."""
        if not self.is_up:
            return
        versions = self.versions()
        current = [version for version, labels in versions.items() if "AWSCURRENT" in labels]
        assert len(current) == 1
        if self.rotations.strategy == "postgres-alternating":
            assert self.logs_in(current[0])
        else:
            assert any(self.logs_in(version) for version in versions)

    def teardown(self) -> None:
        """With the faults gone, one repair makes everything good, and the next rotation works."""
        try:
            self.box.postgres.start()
            self.rotations.repair()
            assert self.rotations.logs_in()
            assert "AWSPENDING" not in self.rotations.labels()
            token = self.rotations.run()
            assert self.rotations.labels()["AWSCURRENT"] == token
            assert self.rotations.labels().keys() == {"AWSCURRENT", "AWSPREVIOUS"}
            assert self.rotations.logs_in()
            self.passwords.update(self.rotations.value_of(version)["password"] for version in self.versions())
        finally:
            self.secret.__exit__(None, None, None)
            self.client.close()
            self.careful.close()

    def versions(self) -> dict[str, list[str]]:
        """Return every version that has a value, whatever labels it has."""
        listed = self.careful.list_secret_version_ids(
            SecretId=self.rotations.secret_id, IncludeDeprecated=True
        )
        return {version["VersionId"]: version.get("VersionStages", []) for version in listed["Versions"]}

    def logs_in(self, version: str) -> bool:
        """Whether the server accepts a version."""
        value = self.rotations.value_of(version)
        try:
            self.box.postgres.connect(user=value.get("username"), password=value["password"]).close()
        except psycopg2.OperationalError:
            return False
        return True


@pytest.mark.timeout(600)  # some hundred sequences of rotations, with restarts of a server
@pytest.mark.parametrize("strategy", ["postgres-single", "postgres-alternating"])
def test_nothing_locks_an_application_out(own_box: Sandbox, strategy: str) -> None:
    """Whatever happens in whatever order: somebody logs in, and in the end everything is good."""
    known: set[str] = set()

    class Machine(InterferenceOfPostgres):
        box = own_box
        passwords = known

    Machine.strategy = strategy
    interfere(Machine)

    log = Path(own_box.postgres.log_file).read_text()
    assert len(known) >= EXAMPLES
    assert not [password for password in known if password in log]
