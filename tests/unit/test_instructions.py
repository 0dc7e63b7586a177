"""Are instructions counted as they should be?"""

import pytest

from benchmarks import instructions

REPORT = """# callgrind format
version: 1
events: Ir
summary: 2983654089

fn=(1) main
12 2459269827

totals: 2983654089
"""


def test_the_total_of_a_report_is_found() -> None:
    """What callgrind has collected in all is read, and no function's part of it."""
    assert instructions.collected(REPORT) == 2_983_654_089


def test_an_unfinished_report_is_no_figure() -> None:
    """A process that was ended has counted less, and that must not look like a cheap session."""
    with pytest.raises(ValueError, match="no totals"):
        instructions.collected(REPORT.partition("totals")[0])


def test_a_start_is_not_counted() -> None:
    """Whatever is done once is in both runs, and in no session's figure."""
    start, session = 2_400_000_000, 500_000

    counts = [start + sessions * session for sessions in (200, 1200)]

    assert instructions.of_a_session(*counts) == session


def test_a_line_says_what_it_is_in_proportion_to_bare_sqlalchemy() -> None:
    """Each driver's figures are compared with that driver's own."""
    counts = {
        ("psycopg2", "bare"): 500_000.0,
        ("psycopg2", "ledger_db"): 510_000.0,
        ("asyncpg", "bare"): 1_000_000.0,
        ("asyncpg", "ledger_db"): 1_030_000.0,
    }

    assert [line.split()[-1] for line in instructions.lines(counts)] == ["1.000", "1.020", "1.000", "1.030"]


def test_what_is_counted_knows_the_server_and_nothing_else_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of whoever runs the benchmark do not change what is measured."""
    monkeypatch.setenv("LEDGER_DB_POOL_PRE_PING", "1")
    secret = {"username": "u", "password": "p", "host": "127.0.0.1", "port": "5432", "dbname": "d"}

    environment = instructions.environment_of(secret)

    assert {name for name in environment if name.startswith("LEDGER_DB_")} == {
        f"LEDGER_DB_DATABASE_{what}" for what in ("USER", "PASSWORD", "HOST", "PORT", "NAME")
    }
    assert environment["PYTHONHASHSEED"] == "0"


def test_without_valgrind_it_is_skipped_with_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`make bench` goes on where the tool is not installed."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.argv", ["instructions"])

    instructions.main()

    assert "skipped" in capsys.readouterr().out
