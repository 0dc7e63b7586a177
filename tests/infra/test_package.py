"""Is the Lambda zip the same everywhere, and does it hold what the functions need and nothing else?"""

import hashlib
import io
import re
import shutil
import ssl
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import pytest
import trustme

from infra import package, wheels

PROJECT = Path(__file__).resolve().parents[2]


@cache
def zip_for(architecture: str) -> bytes:
    """Make a zip, once."""
    return package.build(architecture)


@pytest.fixture(params=sorted(wheels.PLATFORMS))
def made(request: pytest.FixtureRequest) -> tuple[str, bytes]:
    """A zip for each machine."""
    return request.param, zip_for(request.param)


def opened(content: bytes) -> zipfile.ZipFile:
    """Open a zip that is in memory."""
    return zipfile.ZipFile(io.BytesIO(content))


def test_another_checkout_makes_the_same_bytes(tmp_path: Path) -> None:
    """A clone in another folder, at another time, makes the zip with the same digest."""
    content = zip_for("x86_64")
    for folder in ("infra", "ledger_db"):
        shutil.copytree(PROJECT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(PROJECT / "LICENSE", tmp_path / "LICENSE")
    command = [sys.executable, "-m", "infra.package"]
    said = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    assert hashlib.sha256(content).hexdigest() in said
    assert (tmp_path / "build" / "rotation-x86_64.zip").read_bytes() == content


def test_it_holds_what_is_needed_and_nothing_else(made: tuple[str, bytes]) -> None:
    """boto3 is the runtime's, and nobody waits for SQLAlchemy at a cold start."""
    architecture, content = made
    names = opened(content).namelist()
    roots = {name.split("/")[0] for name in names}

    assert {root for root in roots if not root.endswith(".dist-info")} == {
        "CONTENTS.md",
        "LICENSE",
        "certificates.pem",
        "ledger_db",
        "psycopg2",
        "psycopg2_binary.libs",
        "redis",
    }
    machine = {"arm64": "aarch64", "x86_64": "x86_64"}[architecture]
    assert f"psycopg2/_psycopg.cpython-312-{machine}-linux-gnu.so" in names
    assert {name.split("/")[1] for name in names if name.startswith("ledger_db/")} == {
        "__init__.py",
        "__pycache__",
        "_front_door.py",
        "answers",
        "backoff.py",
        "event_log.py",
        "redaction.py",
        "errors.py",
        "rotation",
    } - ({"__pycache__"} if package.matching_interpreter() is None else set())


def test_it_is_small(made: tuple[str, bytes]) -> None:
    """A cold start does not unpack what nobody uses."""
    architecture, content = made

    assert len(content) <= {"arm64": 7_000_000, "x86_64": 5_250_000}[architecture]


def test_it_says_what_is_in_it(made: tuple[str, bytes]) -> None:
    """Versions are those that the suite ran with, and every licence is named."""
    contents = opened(made[1]).read("CONTENTS.md").decode()
    pins = dict(
        line.split(";")[0].strip().split("==")
        for line in (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    )
    rows = re.findall(r"^\| ([\w-]+) \| ([\d.]+) \| (.+) \| [0-9a-f]{64} \|$", contents, re.MULTILINE)

    assert [(name, version) for name, version, _ in rows] == [
        (name, pins[name]) for name in ("psycopg2-binary", "redis")
    ]
    assert all(licence != "see its metadata" for *_, licence in rows)


def test_both_handlers_are_imported_from_it(made: tuple[str, bytes], tmp_path: Path) -> None:
    """What Lambda calls is there, and needs nothing that is not."""
    opened(made[1]).extractall(tmp_path)
    # -S: without the packages of this machine.
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from ledger_db.rotation import elasticache, redis, strategies\n"
        "from ledger_db.rotation.events import event_handler\n"
        "from ledger_db.rotation.handler import lambda_handler\n"
        "import redis\n"
        "print([name for name in ('boto3', 'sqlalchemy', 'pydantic') if name in sys.modules])"
    )
    command = [sys.executable, "-I", "-S", "-B", "-c", program, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (run.returncode, run.stdout, run.stderr) == (0, "[]\n", "")


@pytest.mark.skipif(
    package.matching_interpreter() is None, reason=f"no Python {wheels.PYTHON} on this machine"
)
def test_bytecode_is_for_the_python_of_the_function(made: tuple[str, bytes]) -> None:
    """The function's Python takes it as it is, and a traceback shows Lambda's paths."""
    archive = opened(made[1])
    content = archive.read("ledger_db/rotation/__pycache__/handler.cpython-312.pyc")
    magic = "import importlib.util; print(importlib.util.MAGIC_NUMBER.hex())"
    interpreter = package.matching_interpreter()
    assert interpreter is not None
    said = subprocess.run([interpreter, "-c", magic], capture_output=True, text=True, check=True).stdout

    assert content[:4].hex() == said.strip()
    # PEP 552: by hash, unchecked.
    assert int.from_bytes(content[4:8], "little") == 0b01
    assert b"/var/task/ledger_db/rotation/handler.py" in content


@pytest.mark.skipif(
    package.matching_interpreter() is None, reason=f"no Python {wheels.PYTHON} on this machine"
)
def test_its_driver_works_in_the_python_of_the_function(tmp_path: Path) -> None:
    """The rotation of PostgreSQL loads, tries a login with the zip's certificates, and knows the answer."""
    opened(zip_for("x86_64")).extractall(tmp_path)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from ledger_db.rotation import postgres\n"
        "from ledger_db.rotation.postgres_login import probe\n"
        "from ledger_db.answers.secret import Secret\n"
        "from ledger_db.answers.tls import TLS\n"
        "from ledger_db.rotation.protocol import Deadline\n"
        "fields = {'host': '127.0.0.1', 'port': 1, 'username': 'a', 'password': 'b'}\n"
        "tls = TLS(mode='verify-full', ca_file=sys.argv[1] + '/certificates.pem')\n"
        "print(probe(Secret('s', 'v', fields), tls, Deadline.after(5)).outcome)"
    )
    command = [str(package.matching_interpreter()), "-I", "-S", "-B", "-c", program, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (run.stdout, run.stderr) == ("closed_port\n", "")


def test_it_trusts_amazon_and_whom_it_is_told_to(tmp_path: Path) -> None:
    """ElastiCache is under Amazon's public authorities; RDS, or a company, has its own."""
    authority = trustme.CA()
    path = tmp_path / "own.pem"
    authority.cert_pem.write_to_path(path)
    amazon, both = package.certificates([]), package.certificates([path])
    trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusted.load_verify_locations(cadata=both.decode())

    assert {"Amazon Root CA 1", "Starfield Services Root Certificate Authority - G2"} <= {
        dict(pair for part in certificate["subject"] for pair in part).get("commonName")  # type: ignore[misc] # as ssl has it
        for certificate in trusted.get_ca_certs()
    }
    assert both.startswith(amazon.rstrip())
    assert len(trusted.get_ca_certs()) == amazon.count(b"BEGIN CERTIFICATE") + 1


@pytest.mark.parametrize(
    "content", [None, "", "-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n"]
)
def test_a_file_that_holds_no_authority_is_refused(content: str | None, tmp_path: Path) -> None:
    """Not a function that trusts nobody, found out at its first rotation."""
    path = tmp_path / "own.pem"
    if content is not None:
        path.write_text(content, encoding="utf-8")

    with pytest.raises(wheels.PackageError, match=r"own\.pem"):
        package.certificates([path])


@pytest.mark.parametrize(("unit", "trusted"), [("Amazon RDS", True), ("Amazon", False)])
def test_it_is_known_whether_a_zip_trusts_rds(unit: str, tmp_path: Path, *, trusted: bool) -> None:
    """The authorities in it are asked, not whoever made it; Amazon's public ones are not those of RDS."""
    path = tmp_path / "authority.pem"
    trustme.CA(organization_unit_name=unit).cert_pem.write_to_path(path)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(package.CERTIFICATES, package.certificates([path]))

    assert package.trusts_rds(made.getvalue()) is trusted


def test_what_is_no_zip_of_ours_is_refused() -> None:
    """Somebody's archive is not taken for a function that trusts nobody."""
    with pytest.raises(wheels.PackageError, match="make package"):
        package.trusts_rds(b"no zip")


@pytest.mark.parametrize(
    ("pin", "said"),
    [
        (f"psycopg2-binary==0.0.1 --hash=sha256:{'0' * 64}", "no zip was made.*psycopg2-binary"),
        (f"redis==8.1.0 --hash=sha256:{'0' * 64}", "no zip was made.*DO NOT MATCH THE HASHES"),
        ("redis==8.1.0", "no zip was made.*hash"),
    ],
)
def test_a_wheel_that_is_not_the_pinned_one_is_named(
    pin: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message is pip's own reason, and no zip is made of another wheel, or of an unchecked one."""
    pins = tmp_path / "wheels.txt"
    pins.write_text(pin, encoding="utf-8")
    monkeypatch.setattr(wheels, "PINS", pins)

    with pytest.raises(wheels.PackageError, match=said):
        wheels.fetch("x86_64")
