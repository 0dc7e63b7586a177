"""Which setting is it that a server's sentence is about, if it is about one at all?"""

import pytest

from ledger_db.answers.login_errors import judge
from ledger_db.answers.reason import Verdict
from ledger_db.answers.server_settings import SettingRefused, on_command_line, refused_of, what_to_mend

TOLD = {"role": "reports", "work_mem": "8MB", "search_path": "app"}


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ('FATAL:  role "reports" does not exist', "role"),
        ("FATAL:  Rolle »reports« existiert nicht", "role"),
        ("FATAL:  le rôle « reports » n'existe pas", "role"),
        ('FATAL:  invalid value for parameter "WORK_MEM": "8MB"', "work_mem"),
        ('FATAL:  role "app" does not exist', None),
        ('FATAL:  password authentication failed for user "app"', None),
        ('FATAL:  database "other" does not exist', None),
        ("connection refused", None),
    ],
)
def test_a_sentence_that_quotes_a_setting_is_about_it(said: str, name: str | None) -> None:
    """In any language; who logs in is not a setting, whatever else has the same name."""
    assert refused_of(TOLD, said, but={"app"}) == name


def test_a_refused_setting_is_no_refused_login() -> None:
    """No other credentials are looked for, although its cause has the words of a login."""
    error = SettingRefused("the setting")
    error.__cause__ = RuntimeError('FATAL:  role "reports" does not exist')

    assert judge(error.__cause__) is Verdict.REFUSED
    assert judge(error) is Verdict.PERMANENT


def test_a_command_line_is_read_as_the_server_reads_it() -> None:
    """A space that is escaped ends no value, and a dash in a name is an underscore."""
    told = on_command_line(r"-c search_path=a\ b -cWork_Mem=8MB --lock-timeout=2s -c geqo")

    assert told == {"search_path": "a b", "work_mem": "8MB", "lock_timeout": "2s"}


def test_what_has_a_setting_of_its_own_is_mended_there() -> None:
    """The message names the setting that can be found."""
    assert "LEDGER_DB_LOCK_TIMEOUT_SECONDS" in what_to_mend("lock_timeout")
    assert "LEDGER_DB_SERVER_SETTINGS" in what_to_mend("role")
