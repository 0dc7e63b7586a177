"""Where TLS is in the way of a login, is it said which setting to change, and which file it was?"""

import pytest

from ledger_db.answers import login_errors, postgres, redis
from ledger_db.answers.login_errors import find
from ledger_db.answers.reason import Finding, Reason
from ledger_db.answers.tls_trouble import RDS_BUNDLE, Protection, advice, told
from ledger_db.connections.engines import EngineOptions
from ledger_db.connections.tls import protection_of

RDS = "app.abc.eu-central-1.rds.amazonaws.com"
ABOUT_AUTHORITIES = (login_errors.NOT_TRUSTED, login_errors.NO_AUTHORITIES)
OF_TLS = (
    *ABOUT_AUTHORITIES,
    login_errors.WRONG_NAME,
    login_errors.EXPIRED,
    login_errors.CLIENT_UNKNOWN,
    login_errors.NO_TLS,
    login_errors.NO_COMMON_TLS,
    postgres.NOT_WITHOUT_TLS,
)


def protection(host: str = "db.example", *, ca_file: str | None = None, insists: bool = True) -> Protection:
    """How some server is spoken to."""
    return Protection(
        host=host, ca_file=ca_file, ca_setting="CA", tls="TLS=on", no_tls="TLS=off", insists=insists
    )


@pytest.mark.parametrize("finding", OF_TLS, ids=lambda finding: finding.words)
def test_each_trouble_has_a_setting(finding: Finding) -> None:
    """Whatever TLS has to do with it, a setting is named, in whichever way the server is spoken to now."""
    for insists in (True, False):
        said = advice(finding, protection(insists=insists))

        assert said is not None
        assert "CA" in said or "TLS=" in said


@pytest.mark.parametrize("finding", ABOUT_AUTHORITIES, ids=lambda finding: finding.words)
@pytest.mark.parametrize("host", [RDS, f"{RDS}.", RDS.upper(), "x.rds.cn-north-1.amazonaws.com.cn"])
def test_what_is_trusted_is_named_and_for_rds_the_bundle(finding: Finding, host: str) -> None:
    """In a service and in a rotation alike."""
    here = advice(finding, protection(host, ca_file="/etc/ca.pem")) or ""
    there = told(finding, "/etc/ca.pem", host)

    assert "'/etc/ca.pem'" in here
    assert "'/etc/ca.pem'" in there
    assert ("rds.amazonaws.com" in host.lower()) <= (RDS_BUNDLE in here and RDS_BUNDLE in there)
    assert "the system's certificates" in told(finding, None, host)
    assert RDS_BUNDLE not in told(finding, None, "db.example")


def test_a_server_that_hangs_up_or_is_silent_may_speak_the_other_way() -> None:
    """Only the way that is not spoken now is proposed."""
    for finding in (redis.HUNG_UP, login_errors.BROKEN):
        assert "TLS=on" in (advice(finding, protection(insists=False)) or "")
        assert advice(finding, protection(insists=True)) is None
    assert "TLS=off" in (advice(login_errors.NO_ANSWER, protection(insists=True)) or "")
    assert advice(login_errors.NO_ANSWER, protection(insists=False)) is None


@pytest.mark.parametrize("reason", [Reason.REFUSED, Reason.NO_DATABASE, Reason.CLOSED_PORT, Reason.UNKNOWN])
def test_other_trouble_is_left_alone(reason: Reason) -> None:
    """A wrong password has nothing to do with certificates."""
    assert advice(Finding(reason, "x"), protection()) is None


@pytest.mark.parametrize(
    ("said", "finding"),
    [
        ("certificate verify failed: certificate has expired", login_errors.EXPIRED),
        ("certificate verify failed: unable to get local issuer certificate", login_errors.NOT_TRUSTED),
        ("certificate verify failed: Hostname mismatch, certificate is not valid", login_errors.WRONG_NAME),
        (
            'no pg_hba.conf entry for host "h", user "u", database "d", no encryption',
            postgres.NOT_WITHOUT_TLS,
        ),
        ('no pg_hba.conf entry for host "h", user "u", database "d", SSL off', postgres.NOT_WITHOUT_TLS),
    ],
)
def test_the_finer_differences_are_seen(said: str, finding: Finding) -> None:
    """Each of them asks for something else."""
    assert find(Exception(said)) == finding


def test_postgresql_is_protected_by_the_names_of_its_settings() -> None:
    """On this machine, where nothing is insisted on, too."""
    far, near = (protection_of(EngineOptions(), host) for host in ("db.example", "127.0.0.1"))

    assert far.ca_setting == "LEDGER_DB_DATABASE_SSLROOTCERT"
    assert (far.insists, near.insists) == (True, False)
