"""What has LocalStack to know of a sandbox, so that its functions can rotate what is in there?"""

import contextlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from infra import package
from ledger_db.sandbox import Sandbox
from ledger_db.sandbox.processes import write_private

ARCHITECTURE: Final = "arm64" if platform.machine() in {"arm64", "aarch64"} else "x86_64"
ROTATED: Final = (Sandbox.database_secret_id, Sandbox.redis_secret_id)
# Administrators first: the others name them.
SECRETS: Final = (
    *(Sandbox.admin_secret_id, Sandbox.redis_admin_secret_id),
    *ROTATED,
    Sandbox.announcements_secret_id,
)


def write(box: Sandbox, folder: Path) -> dict[str, str]:
    """
    Write what the hook of LocalStack reads: secrets into a private file, and the zip beside it.

    Args:
        box: Whose servers they are for; without TLS.

        folder: An empty or new one.

    Returns:
        The variables that lead the hook there.

    Raises:
        PackageError: The zip cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"rotation-{ARCHITECTURE}.zip").write_bytes(package.build(ARCHITECTURE))
    seed = {
        "secrets": secrets_of(box),
        "rotated": ROTATED,
        "environment": {
            "LEDGER_DB_ROTATION_SSLMODE": "disable",
            "LEDGER_DB_REDIS_TLS": "false",
            "LEDGER_DB_ANNOUNCEMENTS_SECRET_ID": box.announcements_secret_id,
        },
    }
    write_private(folder / "seed.json", json.dumps(seed))
    return {
        "LEDGER_DB_LOCALSTACK_SEED": str(folder / "seed.json"),
        "LEDGER_DB_LOCALSTACK_CODE": str(folder),
    }


def secrets_of(box: Sandbox) -> dict[str, dict[str, Any]]:
    """Return the secrets of *box* by name; a ``masterarn`` in them is a name as well."""
    with contextlib.closing(box.client()) as client:
        found = {name: client.get_secret_value(SecretId=name, VersionStage="AWSCURRENT") for name in SECRETS}
    names = {secret["ARN"]: name for name, secret in found.items()}
    return {name: _with_name(json.loads(secret["SecretString"]), names) for name, secret in found.items()}


def _with_name(value: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {**value, "masterarn": names[value["masterarn"]]} if "masterarn" in value else value
