"""How does the stand-in's state survive a kill?"""

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ledger_db.errors import ConfigurationError
from ledger_db.stand_in.model import Secret

_FORMAT = "ledger_db secrets, format 1"


def load(path: Path) -> dict[str, Secret]:
    """
    Read the secrets, by name; none if there is no file yet.

    Raises:
        ConfigurationError: The file is not one of ours or is damaged.  It is left as it is: an empty start
            would throw away passwords that the servers still use.
    """
    try:
        document = json.loads(path.read_bytes())
        return _secrets(document)
    except FileNotFoundError:
        return {}
    except (KeyError, TypeError, AttributeError, ValueError, OSError):
        # "from None": the JSON error quotes what it could not read, and that may be a password.
        message = (
            f"The state file of the Secrets Manager stand-in cannot be read: {path} is not in the form "
            f"'{_FORMAT}'.  Nothing was changed.  Restore the file, or move it away to start without secrets."
        )
        raise ConfigurationError(message) from None


def save(path: Path, secrets: Iterable[Secret]) -> None:
    """
    Replace the file in one step: whoever is killed, there is the old state or the new one.

    Raises:
        OSError: The disk is full, or the folder is gone; the old file is as it was.
    """
    document = {"format": _FORMAT, "secrets": [secret.to_json() for secret in secrets]}
    draft = path.with_name(path.name + ".draft")
    try:
        _write(draft, json.dumps(document).encode())
        draft.replace(path)
    except OSError:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _secrets(document: Mapping[str, Any]) -> dict[str, Secret]:
    if document["format"] != _FORMAT:
        raise ValueError(document["format"])
    secrets = [Secret.from_json(secret) for secret in document["secrets"]]
    return {secret.name: secret for secret in secrets}


def _write(path: Path, content: bytes) -> None:
    # Made anew, exclusively and with its final mode: a leftover or planted file could be readable by others,
    # and a chmod afterwards leaves a moment in which it is.
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        # Before the rename, or a power cut could leave the new name with an empty file.
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
