"""
Makes the zip of the two Lambda functions, byte for byte the same from the same sources.

    python -m infra.package --architecture x86_64 --trust global-bundle.pem

Nothing in it depends on when, where or by whom it was made.  So its digest is its name: the same digest is
the same code, and another one is deployed.
"""

import argparse
import hashlib
import io
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import certifi

from infra.wheels import PLATFORMS, PROJECT, PYTHON, PackageError, Wheel, fetch

MOST_BYTES: Final[Mapping[str, int]] = {"arm64": 7_000_000, "x86_64": 5_250_000}
"""
A zip beyond this is a mistake: something was pulled in that does not belong.

arm64's driver comes with two OpenSSLs, one of them past its end; hence x86_64 is what is made if nobody says.
"""

CERTIFICATES: Final = "certificates.pem"
CONTENTS: Final = "CONTENTS.md"
_TASK: Final = "/var/task"
# What the two handlers reach, and nothing that would pull in SQLAlchemy, FastAPI or pydantic.
_OURS: Final = (
    "ledger_db/__init__.py",
    "ledger_db/_front_door.py",
    "ledger_db/event_log.py",
    "ledger_db/redaction.py",
    "ledger_db/answers/*.py",
    "ledger_db/backoff.py",
    "ledger_db/errors.py",
    "ledger_db/rotation/*.py",
)
# ElastiCache's and every other public endpoint of AWS.  RDS has authorities of its own, which --trust adds.
_AMAZON: Final = re.compile(
    r'^# Label: "((?:Amazon Root CA|Starfield Services Root)[^"]*)"$.*?'
    r"(-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----)",
    re.MULTILINE | re.DOTALL,
)
# In the subject of each of RDS' authorities.
_RDS: Final = "Amazon RDS"
# Compiled redis would be a megabyte more, and a rotation of PostgreSQL never imports it.
_COMPILED: Final = ("ledger_db/", "psycopg2/")
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


def build(architecture: str, *, trust: Sequence[Path] = ()) -> bytes:
    """
    Return the zip.

    Args:
        architecture: ``arm64`` or ``x86_64``.

        trust: PEM files with authorities beyond Amazon's public ones: those of RDS, or of a company.

    Raises:
        PackageError: A part is not to be had, or it became too large.
    """
    wheels = fetch(architecture)
    files = {name: content for wheel in wheels for name, content in wheel.files.items()}
    files |= dict(_sources())
    files[CERTIFICATES] = certificates(trust)
    interpreter = matching_interpreter()
    bytecode = _compiled(files, interpreter) if interpreter else {}
    files[CONTENTS] = _contents(architecture, wheels, trust, compiled=bool(bytecode)).encode()
    made = _zipped(files | bytecode)
    # How long a list of authorities is, is not for us to say.
    most = MOST_BYTES[architecture] + sum(path.stat().st_size for path in trust)
    if len(made) > most:
        raise PackageError(f"the zip has {len(made)} bytes, more than {most}; what is new in it?")
    return made


def certificates(trust: Sequence[Path]) -> bytes:
    """
    Return whom the functions trust: Amazon's public authorities, and what is in *trust*.

    Raises:
        PackageError: A file cannot be read, or holds no certificates.
    """
    found = [pem for _, pem in _AMAZON.findall(Path(certifi.where()).read_text(encoding="utf-8"))]
    for path in trust:
        try:
            pem = path.read_text(encoding="utf-8")
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
        except (OSError, ValueError, ssl.SSLError) as error:
            raise PackageError(
                f"{path} is no file of certificates in PEM ({type(error).__name__})"
            ) from error
        found.append(pem.strip())
    return ("\n".join(found) + "\n").encode()


def trusts_rds(made: bytes) -> bool:
    """
    Return whether the functions of a zip would believe a server of RDS.

    Raises:
        PackageError: It is no zip that this module has made.
    """
    trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        with zipfile.ZipFile(io.BytesIO(made)) as archive:
            trusted.load_verify_locations(cadata=archive.read(CERTIFICATES).decode())
    except (KeyError, ValueError, ssl.SSLError, zipfile.BadZipFile) as error:
        raise PackageError(
            f"that is no zip of `make package` ({type(error).__name__}); make it anew"
        ) from error
    subjects: list[Any] = [authority["subject"] for authority in trusted.get_ca_certs()]
    return any(_RDS in value for subject in subjects for part in subject for _, value in part)


def matching_interpreter() -> str | None:
    """Return a Python of the function's version; None if this machine has none."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    named = [sys.executable, shutil.which(f"python{PYTHON}")]
    for candidate in (*named, *map(str, sorted(pyenv.glob(f"{PYTHON}.*/bin/python{PYTHON}")))):
        if candidate is not None and _version_of(candidate) == PYTHON:
            return candidate
    return None


def _version_of(interpreter: str) -> str:
    # A shim of a version manager is there for every version, and works for few.
    command = [interpreter, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - found above
    except OSError:
        return ""
    return run.stdout.strip()


def _sources() -> Iterator[tuple[str, bytes]]:
    for pattern in _OURS:
        for path in PROJECT.glob(pattern):
            yield path.relative_to(PROJECT).as_posix(), path.read_bytes()
    yield "LICENSE", (PROJECT / "LICENSE").read_bytes()


def _compiled(files: Mapping[str, bytes], interpreter: str) -> dict[str, bytes]:
    """
    Return bytecode of what every cold start imports, which then takes a third of the time.

    Unchecked: the files of a function never change, and their dates in the zip say nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            if not name.startswith(_COMPILED) or not name.endswith(".py"):
                continue
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        options = ["-q", "-f", "-j", "1", "--invalidation-mode", "unchecked-hash", "-s", folder, "-p", _TASK]
        # The seed: a set among the constants is written in the order of its hashes.
        subprocess.run(  # noqa: S603 - found by us
            [interpreter, "-m", "compileall", *options, folder],
            env={"PYTHONHASHSEED": "0"},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return {
            path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*.pyc")
        }


def _zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name], zipfile.ZIP_DEFLATED, compresslevel=9)
    return buffer.getvalue()


def _contents(architecture: str, wheels: Sequence[Wheel], trust: Sequence[Path], *, compiled: bool) -> str:
    rows = [f"| {wheel.name} | {wheel.version} | {wheel.licence} | {wheel.digest} |" for wheel in wheels]
    more = "".join(f", {path.name} ({hashlib.sha256(path.read_bytes()).hexdigest()})" for path in trust)
    return "\n".join(
        (
            f"# ledger_db's functions for Python {PYTHON} on {architecture}",
            "",
            "| part | version | licence | SHA-256 of the wheel |",
            "|---|---|---|---|",
            "| ledger_db: rotation and what it needs | of this commit | Apache-2.0 | |",
            *rows,
            "",
            f"{CERTIFICATES}: Amazon's public authorities as certifi (MPL-2.0) has them{more}.",
            f"Bytecode: {'of ' + PYTHON + ', unchecked' if compiled else 'none'}.",
            "",
        )
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the zip into build/, and say what it is."""
    parser = argparse.ArgumentParser(prog="python -m infra.package", description="Make the Lambda zip.")
    parser.add_argument("--architecture", choices=sorted(PLATFORMS), default="x86_64")
    parser.add_argument("--trust", type=Path, action="append", default=[], metavar="PEM")
    parser.add_argument(
        "--output", type=Path, metavar="ZIP", help="build/rotation-ARCHITECTURE.zip if absent"
    )
    given = parser.parse_args(arguments)
    output = given.output or PROJECT / "build" / f"rotation-{given.architecture}.zip"
    try:
        made = build(given.architecture, trust=given.trust)
    except PackageError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(made)
    sys.stdout.write(f"{output}: {len(made)} bytes, sha256 {hashlib.sha256(made).hexdigest()}\n")
    if not given.trust:
        sys.stdout.write(
            "It trusts Amazon's public authorities only. RDS has its own: see docs/infrastructure.md\n"
        )
    if matching_interpreter() is None:
        sys.stdout.write(f"No Python {PYTHON} was found, so it has no bytecode and starts more slowly.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
