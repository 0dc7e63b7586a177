"""Does a rotation give a secret back in the shape that it had, and leave one alone that it is not for?"""

import json
from typing import Any

import pytest

from ledger_db.rotation.failures import SecretUnusable
from ledger_db.sandbox import Sandbox
from tests.support.rotations import Rotations, new_token, own_secret

# What people and AWS's tools add, in an order that no program would choose.
EXTRAS: dict[str, Any] = {
    "zone": {"b": [1, 2.5, None, True], "a": "é \u2028 \U0001f600"},
    "dbInstanceIdentifier": "db-1",
    "Comment": "two  spaces",
    "retries": "3",
    "limit": 12345678901234567890,
    "nothing": None,
}


def stored(rotations: Rotations) -> dict[str, Any]:
    """Return the form in which AWSCURRENT is stored, and what it holds."""
    answer = rotations.client.get_secret_value(SecretId=rotations.secret_id)
    return {name: value for name, value in answer.items() if name in {"SecretString", "SecretBinary"}}


@pytest.mark.parametrize("strategy", ["postgres-single", "postgres-alternating"])
@pytest.mark.parametrize("form", ["SecretString", "SecretBinary"])
def test_the_form_of_a_secret_is_kept(box: Sandbox, strategy: str, form: str) -> None:
    """Who reads the one form finds nothing in the other; rotation after rotation."""
    with own_secret(box, strategy) as rotations:
        text = json.dumps({**EXTRAS, **rotations.value()})
        rotations.client.put_secret_value(
            SecretId=rotations.secret_id, **{form: text if form == "SecretString" else text.encode()}
        )
        for _ in range(2):
            rotations.run()

        assert list(stored(rotations)) == [form]


@pytest.mark.parametrize("as_text", [True, False])
def test_all_but_the_login_stays_as_it_is(box: Sandbox, *, as_text: bool) -> None:
    """Unknown fields, their order, and a number that is stored as text."""
    with own_secret(box, "postgres-single") as rotations:
        before = {**EXTRAS, **rotations.value()}
        before["port"] = str(before["port"]) if as_text else before["port"]
        rotations.put(lambda _: before)
        rotations.run()
        after = rotations.value()

    assert list(after) == list(before)
    assert {**after, "password": ""} == {**before, "password": ""}
    assert after["password"] != before["password"]


@pytest.mark.parametrize("engine", ["mysql", "mariadb", "oracle-ee", "docdb", "redis", "valkey", "memorydb"])
def test_another_engine_is_refused_before_anything_is_written(box: Sandbox, engine: str) -> None:
    """By createSecret and in advance by the dry run; the secret has no new version."""
    with own_secret(box, "postgres-single", engine=engine) as rotations:
        before = rotations.labels()
        with pytest.raises(SecretUnusable, match="nothing was changed"):
            rotations.step("createSecret", new_token())
        with pytest.raises(SecretUnusable, match="engine"):
            rotations.examine()

        assert rotations.labels() == before


def test_a_secret_without_an_administrator_is_rotated_as_one_role(box: Sandbox) -> None:
    """As the console of RDS writes it, by a function that is told no strategy."""
    with own_secret(box, None, masterarn=None, users=None) as rotations:
        rotations.run()

        assert rotations.logs_in()
        assert rotations.examine().strategy == "postgres-single"


def test_a_secret_with_an_administrator_alone_gets_a_clone(box: Sandbox) -> None:
    """As AWS's own function for two users would make it, and the next rotation leads back."""
    with own_secret(box, None, users=None) as rotations:
        name = rotations.value()["username"]
        rotations.run()
        clone = rotations.value()["username"]
        assert rotations.logs_in()
        rotations.run()

        assert (clone, rotations.value()["username"]) == (f"{name}_clone", name)
        assert rotations.logs_in()
