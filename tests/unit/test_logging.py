"""Does botocore keep secrets out of its DEBUG log once we have asked it to?"""

import logging

import pytest

from ledger_db.redaction import describe, hide_secrets_of_botocore


@pytest.mark.parametrize(
    ("logger", "template", "argument"),
    [
        ("botocore.parsers", "Response body:\n%r", b'{"SecretString": "c4nary"}'),
        ("botocore.auth", "Signature:\n%s", "c4nary"),
        ("botocore.endpoint", "Sending http request: %s", '{"SecretString": "c4nary"}'),
        ("botocore.parsers", "Response body:\n%r", b"<SecretAccessKey>c4nary</SecretAccessKey>"),
        ("botocore.endpoint", "Making request with params: %s", {"WebIdentityToken": "c4nary"}),
    ],
)
def test_bodies_and_signatures_are_hidden(
    logger: str, template: str, argument: object, caplog: pytest.LogCaptureFixture
) -> None:
    """The record stays, so that one can see that something was there; its text and arguments go."""
    hide_secrets_of_botocore()
    with caplog.at_level(logging.DEBUG):
        logging.getLogger(logger).debug(template, argument)

    assert len(caplog.records) == 1
    assert "c4nary" not in caplog.text
    assert "hidden by ledger_db" in caplog.text


def test_other_records_pass(caplog: pytest.LogCaptureFixture) -> None:
    """What is needed to understand a problem with AWS stays readable."""
    hide_secrets_of_botocore()
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("botocore.parsers").debug("Response headers: %s", {"a": 1})

    assert "Response headers: {'a': 1}" in caplog.text


def test_an_error_is_described_by_its_first_line() -> None:
    """libpq repeats itself; an asyncpg timeout says nothing at all."""
    assert describe(ValueError("one\ntwo")) == "ValueError: one"
    assert describe(TimeoutError()) == "TimeoutError"
