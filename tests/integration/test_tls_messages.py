"""Where TLS is in the way: are setting and file named, on every driver, with the error of the driver?"""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import trustme

from ledger_db import ConfigurationError, ConnectionManager, LedgerDBError, ServerUnreachable, Settings
from ledger_db.answers.tls import TLS
from ledger_db.rotation.failures import CertificateWrong, TLSMissing
from ledger_db.sandbox import Sandbox
from tests.support.any_driver import client_of
from tests.support.rotations import new_token, own_secret


@pytest.fixture(scope="module")
def tls_box() -> Iterator[Sandbox]:
    """Servers that speak TLS only."""
    with Sandbox(tls=True) as sandbox:
        yield sandbox


@pytest.fixture
def files(tmp_path: Path) -> Mapping[str, str]:
    """Files of authorities: of somebody else, of nobody, and one that is not there."""
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    (tmp_path / "text.pem").write_text("hello")
    return {name: str(tmp_path / name) for name in ("other.pem", "text.pem", "absent.pem")}


@pytest.fixture
def untold(tls_box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """The environment of those servers, without what it says about TLS."""
    for name, value in tls_box.environment.items():
        monkeypatch.setenv(name, "" if "SSL" in name or "TLS" in name else value)
    return tls_box


def postgres(**fields: object) -> Settings:
    """Settings without Redis."""
    return Settings(**{"redis_secret_id": None, "startup_timeout_seconds": 20, **fields})


def redis(**fields: object) -> Settings:
    """Settings without PostgreSQL."""
    return Settings(**{"database_secret_id": None, "startup_timeout_seconds": 20, **fields})


def open_redis(settings: Settings, kind: str) -> None:
    """Start and stop."""

    async def go() -> None:
        async with ConnectionManager(settings):
            pass

    if kind == "async":
        asyncio.run(go())
        return
    with ConnectionManager(settings):
        pass


def test_an_authority_that_the_system_does_not_know(untold: Sandbox, driver: str) -> None:
    """The first thing that every user of RDS meets."""
    with (
        pytest.raises(ConfigurationError, match=r"SSLROOTCERT .*the system's certificates") as failed,
        client_of(driver, postgres(database_sslmode="verify-full")),
    ):
        pass

    assert failed.value.__cause__ is not None


@pytest.mark.parametrize("file", ["other.pem", "text.pem", "absent.pem"])
def test_a_file_with_the_wrong_authorities_or_none(
    untold: Sandbox, driver: str, files: Mapping[str, str], file: str
) -> None:
    """The message has the file and the setting that names it."""
    settings = postgres(database_sslmode="verify-full", database_sslrootcert=files[file])
    with (
        pytest.raises(ConfigurationError, match="LEDGER_DB_DATABASE_SSLROOTCERT") as failed,
        client_of(driver, settings),
    ):
        pass

    assert files[file] in str(failed.value)
    assert failed.value.__cause__ is not None


def test_a_server_that_lets_nobody_in_without_tls(untold: Sandbox, driver: str) -> None:
    """As RDS does by default: what it says is about pg_hba.conf, which nobody can edit there."""
    with (
        pytest.raises(ConfigurationError, match="set LEDGER_DB_DATABASE_SSLMODE=verify-full"),
        client_of(driver, postgres(database_sslmode="disable")),
    ):
        pass


def test_a_server_without_tls(environment: Sandbox, driver: str) -> None:
    """There is no fallback, and the setting that insists is named."""
    with (
        pytest.raises(ConfigurationError, match="turn TLS on at the server; LEDGER_DB_DATABASE_SSLMODE="),
        client_of(driver, postgres(database_sslmode="require")),
    ):
        pass


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_redis_with_tls_that_is_asked_in_clear(untold: Sandbox, kind: str) -> None:
    """It hangs up without a word."""
    with pytest.raises(ServerUnreachable, match="set LEDGER_DB_REDIS_TLS=true") as failed:
        open_redis(redis(), kind)

    assert failed.value.__cause__ is not None


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_redis_without_tls_that_is_asked_in_tls(environment: Sandbox, kind: str) -> None:
    """It waits for the rest of what it takes for a command."""
    with pytest.raises(ServerUnreachable, match="LEDGER_DB_REDIS_TLS"):
        open_redis(redis(redis_tls=True), kind)


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("file", [None, "other.pem", "text.pem", "absent.pem"])
def test_authorities_of_redis(untold: Sandbox, files: Mapping[str, str], kind: str, file: str | None) -> None:
    """The message has the file, if there is one, and the setting that names it."""
    path = None if file is None else files[file]
    with pytest.raises(ConfigurationError, match="LEDGER_DB_REDIS_TLS_CA_FILE") as failed:
        open_redis(redis(redis_tls=True, redis_tls_ca_file=path), kind)

    assert (path or "the system's certificates") in str(failed.value)
    assert failed.value.__cause__ is not None


@pytest.mark.parametrize("file", [None, "other.pem", "absent.pem"])
def test_a_rotation_names_whom_it_trusted(
    tls_box: Sandbox, files: Mapping[str, str], file: str | None
) -> None:
    """The step fails with the file, the setting, and the driver's error behind it."""
    path = None if file is None else files[file]
    with own_secret(tls_box, "postgres-single", masterarn=None) as rotations:
        token = new_token()
        rotations.step("createSecret", token)
        runner = rotations.runner(tls=TLS(mode="verify-full", ca_file=path))
        with pytest.raises(CertificateWrong, match="LEDGER_DB_ROTATION_SSLROOTCERT") as failed:
            rotations.step("setSecret", token, runner=runner)

    assert (path or "the system's certificates") in str(failed.value)
    assert behind(failed.value) == "OperationalError"


def test_a_rotation_keeps_the_drivers_error(environment: Sandbox) -> None:
    """What a person's tools show of causes begins with the driver."""
    with own_secret(environment, "postgres-single", masterarn=None) as rotations:
        token = new_token()
        rotations.step("createSecret", token)
        with pytest.raises(TLSMissing) as failed:
            rotations.step("setSecret", token, runner=rotations.runner(tls=TLS(mode="require")))

    assert behind(failed.value) == "OperationalError"


def behind(error: LedgerDBError) -> str:
    """Return the class of the first error in a chain of causes."""
    link: BaseException = error
    while link.__cause__ is not None:
        link = link.__cause__
    return type(link).__name__
