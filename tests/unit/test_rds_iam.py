"""Are RDS login tokens made in time, and does a new one leave sessions alone?"""

import pytest

from ledger_db import ConfigurationError, RdsIamSource
from ledger_db.testing import ManualClock


def test_a_token_is_a_password_that_ends() -> None:
    """It is signed for host, port and user, and lives fifteen minutes."""
    source = RdsIamSource(
        "app", "db.example", port=5433, sign=lambda h, p, u: f"signed:{u}@{h}:{p}", now=ManualClock(1000.0)
    )
    token = source.fetch("AWSCURRENT")

    assert token is not None
    assert token.password == "signed:app@db.example:5433"
    assert token.expires_at == 1900.0
    assert "signed" not in repr(token)


def test_a_new_token_does_not_make_connections_stale() -> None:
    """Two tokens are two versions with one stamp."""
    clock = ManualClock()
    source = RdsIamSource("app", "db.example", sign=lambda *_: "token", now=clock)
    first = source.fetch("AWSCURRENT")
    clock.advance(60)
    second = source.fetch("AWSCURRENT")

    assert first is not None
    assert second is not None
    assert first.version != second.version
    assert first.stamp == second.stamp


def test_there_is_never_a_pending_token() -> None:
    """AWSPENDING means nothing to IAM."""
    assert RdsIamSource("a", "h", sign=lambda *_: "t").fetch("AWSPENDING") is None


def test_boto3_signs_without_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """With keys and a region in the environment a real token comes out."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    token = RdsIamSource("app", "db.example").fetch("AWSCURRENT")

    assert token is not None
    assert token.password.startswith("db.example:5432/?Action=connect&DBUser=app")
    assert "X-Amz-Expires=900" in token.password


def test_without_aws_credentials_the_message_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    """Nothing to sign with is a matter of configuration."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", f"{tmp_path}/none")
    monkeypatch.setenv("AWS_CONFIG_FILE", f"{tmp_path}/none")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")

    with pytest.raises(ConfigurationError, match=r"there are no AWS credentials .*; set AWS credentials"):
        RdsIamSource("app", "db.example").fetch("AWSCURRENT")
