"""Does the stand-in's store keep what it was given, and lose nothing in a crash?"""

import json
import stat
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ledger_db.errors import ConfigurationError
from ledger_db.stand_in import file as secret_file, values as secret_operations
from ledger_db.stand_in.model import Secret, ServiceError, Value, Version
from ledger_db.stand_in.store import SecretStore
from ledger_db.testing import ManualClock

TOKEN = "t" * 32
DAY_SECONDS = 86_400.0


def create(store: SecretStore, name: str = "s", value: str = "canary-one") -> dict[str, Any]:
    """A secret with a value."""
    request = {"Name": name, "SecretString": value, "ClientRequestToken": TOKEN}
    return secret_operations.create_secret(store, request)


def tagging(key: str) -> Callable[[Secret], Secret]:
    """An edit that adds a tag."""
    return lambda before: replace(before, tags={**before.tags, key: ""})


def read(store: SecretStore, name: str = "s") -> str:
    """Its current value."""
    return str(secret_operations.get_secret_value(store, {"SecretId": name})["SecretString"])


def test_another_process_finds_everything(tmp_path: Path) -> None:
    """ARN, versions, labels, tags: a restart changes nothing."""
    path = tmp_path / "state.json"
    store = SecretStore("us-east-1", path)
    create(store)
    store.change("s", lambda before: replace(before, tags={"a": "1"}, rotation_rules={"Duration": "3h"}))
    read(store)
    again = SecretStore("us-east-1", path)

    assert store.find("s") == again.find("s")
    assert read(again) == "canary-one"


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    """The state holds passwords: nobody else may read it, whatever the umask."""
    path = tmp_path / "state.json"
    create(SecretStore("us-east-1", path))

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_draft_that_others_can_read_is_not_reused(tmp_path: Path) -> None:
    """A leftover draft with open permissions does not hand them on."""
    path = tmp_path / "state.json"
    draft = tmp_path / "state.json.draft"
    draft.touch(mode=0o666)
    draft.chmod(0o666)
    create(SecretStore("us-east-1", path))

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not draft.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"format": "ledger_db secrets, format 1", "secrets": [{"name": "canary',
        b"[]",
        b'{"format": "something else", "secrets": []}',
        b'{"format": "ledger_db secrets, format 1", "secrets": [{"password": "canary"}]}',
        b"\xff\xfe",
    ],
    ids=["empty", "cut off", "no object", "foreign", "other fields", "no text"],
)
def test_a_damaged_file_is_an_error_and_stays(tmp_path: Path, content: bytes) -> None:
    """A state that cannot be read is never replaced by an empty one, and is not quoted."""
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="cannot be read") as caught:
        SecretStore("us-east-1", path)

    assert content == path.read_bytes()
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_change_that_cannot_be_written_has_not_happened(tmp_path: Path) -> None:
    """If the disk is full the caller is told, and readers keep the old value."""
    folder = tmp_path / "state"
    folder.mkdir()
    store = SecretStore("us-east-1", folder / "state.json")
    create(store)
    (folder / "state.json").unlink()
    folder.rmdir()
    request = {"SecretId": "s", "SecretString": "two", "ClientRequestToken": "u" * 32}
    with pytest.raises(ServiceError) as caught:
        secret_operations.put_secret_value(store, request)

    assert (caught.value.code, caught.value.status) == ("InternalServiceError", 500)
    assert read(store) == "canary-one"


def test_a_crowd_loses_no_change(tmp_path: Path) -> None:
    """Changes at the same time are all kept, in memory and in the file."""
    path = tmp_path / "state.json"
    store = SecretStore("us-east-1", path)
    create(store)

    def tag(key: str) -> None:
        for number in range(5):
            store.change("s", tagging(f"{key}{number}"))

    crowd = [threading.Thread(target=tag, args=(key,)) for key in "abcdefgh"]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()

    assert len(store.find("s").tags) == 40
    assert store.find("s") == SecretStore("us-east-1", path).find("s")


def test_reading_twice_a_day_writes_once(tmp_path: Path) -> None:
    """A read is not a change: only the first of a day is noted."""
    path = tmp_path / "state.json"
    clock = ManualClock()
    store = SecretStore("us-east-1", path, clock=clock)
    create(store)
    read(store)
    first = path.stat().st_ino
    read(store)
    second = path.stat().st_ino
    clock.advance(DAY_SECONDS)
    read(store)

    assert first == second
    assert path.stat().st_ino != second


def test_a_secret_is_gone_after_its_recovery_window() -> None:
    """When the window ends the name is free, and nothing can be restored."""
    clock = ManualClock()
    store = SecretStore(clock=clock)
    create(store)
    secret_operations.delete_secret(store, {"SecretId": "s", "RecoveryWindowInDays": 7})
    clock.advance(7 * DAY_SECONDS - 1)
    assert store.find("s").deletion_at is not None
    clock.advance(1)
    with pytest.raises(ServiceError, match="ResourceNotFoundException"):
        store.find("s")

    create(store, value="canary-two")
    assert read(store) == "canary-two"


def test_a_secret_of_the_same_name_has_another_arn() -> None:
    """Who may read the old secret may not thereby read the new one."""
    store = SecretStore()
    first = create(store)["ARN"]
    secret_operations.delete_secret(store, {"SecretId": "s", "ForceDeleteWithoutRecovery": True})

    assert first != create(store)["ARN"]


def test_no_value_is_in_a_repr() -> None:
    """A secret that slips into a log line shows no password."""
    secret = Secret(name="s", arn="arn", created_at=0.0, changed_at=0.0).with_version(
        Version(id=TOKEN, created_at=0.0, value=Value(text="canary", binary="canary"))
    )

    assert TOKEN in repr(secret)
    assert "canary" not in repr(secret)


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    """A later format can tell this one."""
    path = tmp_path / "state.json"
    secret_file.save(path, [])

    assert json.loads(path.read_text()) == {"format": "ledger_db secrets, format 1", "secrets": []}
