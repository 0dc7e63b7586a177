"""Does a Redis user keep everything that ACL SETUSER has given it, but for the secret's older passwords?"""

from contextlib import closing
from typing import Any

import pytest

from ledger_db.rotation.failures import SecretsManagerDenied
from ledger_db.rotation.protocol import Deadline
from ledger_db.rotation.redis import hashed
from ledger_db.sandbox import Sandbox
from ledger_db.stand_in.faults import access_denied
from tests.support.redis_world import RedisWorld, acl, redis_world
from tests.support.rotations import Rotations, new_client, new_token

# Of another service, in as many words as it may have been written with.
OTHERS = ["of-another-service", "of-a-third-one"]


def user_of(world: RedisWorld) -> dict[str, Any]:
    """Return what the server says of the user, without its passwords."""
    with closing(world.admin()) as admin:
        user: Any = admin.acl_getuser(world.user)
    return {name: value for name, value in user.items() if name != "passwords"}


def give(world: RedisWorld, *words: str) -> None:
    """Change the user as an administrator would."""
    with closing(world.admin()) as admin:
        acl(admin, "SETUSER", world.user, *words)


def test_the_password_of_another_service_stays(world: RedisWorld, rotations: Rotations) -> None:
    """However often the secret is rotated; its own older passwords go."""
    give(world, *(f">{password}" for password in OTHERS))
    mine = []
    for _ in range(3):
        mine.append(world.fields()["password"])
        rotations.run()
        assert all(world.logs_in(password) for password in OTHERS)

    assert [world.logs_in(password) for password in mine] == [False, False, True]
    assert len(world.known()) == len(OTHERS) + 2


def test_the_password_of_a_rotation_that_was_given_up_goes(world: RedisWorld, rotations: Rotations) -> None:
    """Its version has no label any more, and is known as the secret's all the same."""
    token = new_token()
    for step in ("createSecret", "setSecret"):
        rotations.step(step, token)
    given_up = rotations.value_of(token)["password"]
    rotations.client.update_secret_version_stage(
        SecretId=world.secret_id, VersionStage="AWSPENDING", RemoveFromVersionId=token
    )
    rotations.run()

    assert not world.logs_in(given_up)
    assert len(world.known()) == 2


def test_whose_password_it_is_has_to_be_known(world: RedisWorld, rotations: Rotations) -> None:
    """Without the right to list versions nothing is written, and the message names that right."""
    give(world, f">{OTHERS[0]}")
    before = world.known()
    token = new_token()
    rotations.step("createSecret", token)
    world.box.secrets_manager.inject(access_denied("ListSecretVersionIds"))
    try:
        with pytest.raises(SecretsManagerDenied, match="ListSecretVersionIds"):
            rotations.step("setSecret", token)
        with pytest.raises(SecretsManagerDenied, match=r"dry run of .*ListSecretVersionIds"):
            rotations.examine()
    finally:
        world.box.secrets_manager.clear_faults()

    assert world.known() == before


def test_a_dry_run_counts_the_passwords_of_others(world: RedisWorld, rotations: Rotations) -> None:
    """And says that a rotation leaves them."""
    rotations.run()
    give(world, *(f">{password}" for password in OTHERS))

    assert any("leaves 2, which no version" in sentence for sentence in rotations.examine().drift)


@pytest.mark.parametrize("others", [[], OTHERS])
def test_the_end_of_an_overlap_costs_nobody_else_a_password(
    world: RedisWorld, rotations: Rotations, others: list[str]
) -> None:
    """`--retire` is about the versions of this secret."""
    old = world.fields()["password"]
    rotations.run()
    give(world, *(f">{password}" for password in others), "on")
    rotations.runner().retire(world.secret_id, Deadline.after(20))

    assert not world.logs_in(old)
    assert world.known() == {hashed(each)[1:] for each in (world.fields()["password"], *others)}


@pytest.mark.parametrize(
    "rights",
    ["~* +get +set", "~k:* &c:* -@all +get", "resetkeys resetchannels -@all", "~* +@all -ping -acl -client"],
)
def test_a_user_with_few_rights_is_rotated(box: Sandbox, rights: str) -> None:
    """Neither PING nor ACL WHOAMI is needed by the user whose password it is, and its rights stay."""
    with redis_world(box, rights=rights) as world, closing(new_client(box)) as client:
        before = user_of(world)
        Rotations(box, client, "redis-acl", world.secret_id).run()

        assert user_of(world) == before
        assert len(world.known()) == 2


@pytest.mark.parametrize(
    "words",
    [
        ["(+get ~other:*)"],
        ["(+set ~a:*)", "(+get %R~b:* &c)"],
        ["resetkeys", "%R~read:*", "%W~write:*"],
        ["resetchannels", "&one"],
    ],
)
def test_what_a_user_may_is_kept(world: RedisWorld, rotations: Rotations, words: list[str]) -> None:
    """Selectors, channels and patterns of keys are none of a rotation's business."""
    give(world, *words)
    before = user_of(world)
    rotations.run()

    assert user_of(world) == before
