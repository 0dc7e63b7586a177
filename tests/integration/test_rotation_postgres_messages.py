"""Does a person who reads the message of a failed rotation know what is wrong, what is true, what to do?"""

import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from ledger_db.answers.tls import TLS
from ledger_db.rotation import failures
from ledger_db.rotation.failures import StepFailed
from ledger_db.sandbox import Sandbox
from ledger_db.sandbox.ports import free_port
from tests.support.rotations import Rotations, new_token, own_secret


@contextmanager
def black_hole() -> Iterator[int]:
    """Listen on a port, and never answer who connects."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


def fail(rotations: Rotations, *, tls: TLS | None = None, seconds: float = 10.0) -> StepFailed:
    """Run into it, and return the error."""
    token = new_token()
    rotations.step("createSecret", token)
    with pytest.raises(StepFailed) as failed:
        rotations.step("setSecret", token, seconds=seconds, runner=rotations.runner(tls=tls))
    return failed.value


def fail_with(box: Sandbox, tls: TLS | None = None, seconds: float = 10.0, **fields: Any) -> StepFailed:
    """Run into it with a secret that has other *fields*."""
    with own_secret(box, "postgres-single", masterarn=None, **fields) as rotations:
        return fail(rotations, tls=tls, seconds=seconds)


def check_parts(error: StepFailed, kind: type[StepFailed], what: str) -> None:
    """Compare an error with its class and check the three parts of its message."""
    message = str(error)

    assert type(error) is kind, message
    assert message.startswith("setSecret of test/test_")
    assert what in message
    assert "; nothing was written to the server; AWSCURRENT is unchanged; " in message
    assert message.endswith(kind.next_move)
    assert "\n" not in message


def test_a_wrong_password(environment: Sandbox) -> None:
    """The server knows none of the versions."""
    error = fail_with(environment, password="not the one on the server")

    check_parts(error, failures.PasswordRefused, "accepts neither AWSPENDING nor AWSCURRENT")


def test_a_missing_database(environment: Sandbox) -> None:
    """The login was good, what it was for is not there."""
    with own_secret(environment, "postgres-single", masterarn=None) as rotations:
        token = new_token()
        rotations.put(lambda value: {**value, "dbname": "no_such_database"})
        # The password of AWSPENDING is on the server, so that it is not that which is refused.
        rotations.step("createSecret", token)
        user, password = (rotations.value("AWSPENDING")[name] for name in ("username", "password"))
        rotations.execute(f"ALTER ROLE {user} PASSWORD '{password}'")
        with pytest.raises(StepFailed) as failed:
            rotations.step("setSecret", token)

    check_parts(failed.value, failures.DatabaseMissing, "database no_such_database")


def test_a_closed_port(environment: Sandbox) -> None:
    """The host is up and nobody listens."""
    error = fail_with(environment, port=free_port())

    check_parts(error, failures.PortClosed, "nobody listens on that port")


def test_an_unknown_host(environment: Sandbox) -> None:
    """DNS knows no such name."""
    error = fail_with(environment, host="no-such-host.invalid")

    check_parts(error, failures.HostUnknown, "PostgreSQL at no-such-host.invalid")


def test_a_black_hole(environment: Sandbox) -> None:
    """Silence ends with a message long before the time of the function does."""
    with black_hole() as port:
        began = time.monotonic()
        error = fail_with(environment, port=port, seconds=3.5)
        seconds = time.monotonic() - began

    check_parts(error, failures.HostSilent, "no answer at all")
    # Generous: other tests run at the same time.  Without any bound it would take two minutes.
    assert seconds < 15.0


def test_an_expired_role(environment: Sandbox) -> None:
    """An administrator sees what the server does not say: the password may be right."""
    with own_secret(environment, "postgres-alternating") as rotations:
        rotations.execute(f"ALTER ROLE {rotations.value()['username']} VALID UNTIL '2001-01-01'")
        error = fail(rotations)

    check_parts(error, failures.PasswordExpired, "has expired")


def test_a_wrong_certificate(environment: Sandbox) -> None:
    """Signed by nobody whom the function trusts."""
    with Sandbox(tls=True) as secured:
        assert secured.tls is not None
        tls = TLS(mode="verify-full")
        error = fail_with(environment, tls=tls, port=secured.postgres.port, host=secured.postgres.host)

    check_parts(error, failures.CertificateWrong, "the server's certificate is not trusted")


def test_no_tls(environment: Sandbox) -> None:
    """There is no fallback to a login in clear."""
    error = fail_with(environment, tls=TLS(mode="verify-full"))

    check_parts(error, failures.TLSMissing, "the server has no TLS")


def test_too_many_connections(environment: Sandbox) -> None:
    """The role may not have as many sessions as there are."""
    with own_secret(environment, "postgres-single", masterarn=None) as rotations:
        token = new_token()
        for step in ("createSecret", "setSecret"):
            rotations.step(step, token)
        rotations.execute(f"ALTER ROLE {rotations.value()['username']} CONNECTION LIMIT 0")
        with pytest.raises(failures.ConnectionsExhausted, match="has as many connections as it may have"):
            rotations.step("testSecret", token)


def test_rotation_over_verified_tls(environment: Sandbox) -> None:
    """With the right CA all four steps work, every login verified."""
    with Sandbox(tls=True) as secured:
        assert secured.tls is not None
        tls = TLS(mode="verify-full", ca_file=str(secured.tls.ca_file))
        with own_secret(secured, "postgres-alternating") as rotations:
            version = rotations.run(runner=rotations.runner(tls=tls))

            assert rotations.labels()["AWSCURRENT"] == version
            assert rotations.logs_in()
