"""
Writes the pages that repeat what the code says: settings.md and command-line.md.

    python docs/generate.py

A test compares both with what this would write, so neither can go stale.
"""

import contextlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin
from unittest import mock

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ledger_db import Settings
from ledger_db.operate.cli import main as run_command_line
from ledger_db.rotation.failures import StepFailed
from ledger_db.settings import POOLER_PRESETS, PRESETS

FOLDER = Path(__file__).resolve().parent

_MADE = "<!-- Written by docs/generate.py: change the code, not this page. -->\n"
_KINDS = {
    bool: "true or false",
    float: "number",
    int: "whole number",
    str: "text",
    SecretStr: "secret text",
    dict[str, str]: "JSON object",
}


_SETTINGS = f"""{_MADE}
# Settings

Each is read from the environment, or given as an argument of `Settings(...)` under its name in small letters
and without the prefix: `LEDGER_DB_POOL_SIZE=5` and `Settings(pool_size=5)` are the same. An empty variable
counts as not set. What is wrong is a `ConfigurationError` that names the variable, and never its value. A
number of seconds is finite, and at most a week (604800) where nothing closer is said. A variable that is
misspelt is told in the log as `settings.unknown`, with the nearest name; an argument is refused.

`LEDGER_DB_PROFILE` and `LEDGER_DB_POOLER` change some defaults, as their column says. What is set by itself
goes before both.

A database is configured by `LEDGER_DB_DATABASE_SECRET_ID`, or without Secrets Manager by a user and a host,
with a password or with `LEDGER_DB_DATABASE_IAM_AUTH`, or for development by `LEDGER_DB_DATABASE_URL`. Redis
is configured by `LEDGER_DB_REDIS_SECRET_ID`, or by a host. Either may be left out; using what is not
configured is a `ConfigurationError`.

AWS itself is configured the AWS way: `AWS_REGION` or `AWS_DEFAULT_REGION`, `AWS_PROFILE`, `AWS_ENDPOINT_URL`,
`AWS_ENDPOINT_URL_SECRETS_MANAGER`, roles. There are no settings of our own for that.

| variable | kind | default | meaning |
|---|---|---|---|
"""

_FIELDS = """
## Of a secret

A secret is one JSON object, as AWS documents them for databases. These fields are read, under these names
only; what is not one of them is nobody's business, unless it looks like a mistake for one that is missing
(`user`, `dbName`, `auth_token`): that is refused by name, as is a host with a port, a scheme or white space.

| field | of PostgreSQL | of Redis |
|---|---|---|
| `username` | needed | `default` if it is not there |
| `password` | needed | needed |
| `host` | needed, here or in `LEDGER_DB_DATABASE_HOST` | needed, here or in `LEDGER_DB_REDIS_HOST` |
| `port` | 5432 if it is not there | 6379 if it is not there |
| `dbname`, else `database` | `postgres` if neither is there: `database.not_named` | 0 if neither is there |
| `engine` | one of PostgreSQL's, if it is there | one of Redis', if it is there |
"""

_SANDBOX = """
## Of the sandbox

The sandbox finds its programs by itself. Two variables name others:

| variable | meaning |
|---|---|
| `LEDGER_DB_PG_BIN` | Folder with `postgres` and `initdb`; [why](testing.md#extensions-of-postgresql) |
| `LEDGER_DB_REDIS_BIN` | A Redis or Valkey server, by name or path |
"""

_COMMAND_LINE = f"""{_MADE}
# Command line

It comes with the extra `cli`, the servers with the extra `sandbox`. The exit status is 0, or 2 for a command
that was mistyped. `rotate` has a status of its own for each cause of failure, and 3 for a `--dry-run` that
found something. It is 1 for everything else that is to be mended; the message says what.
"""

_EXIT_STATUSES = """
## Exit statuses of `ledger-db rotate`

The class is what the function reports as `errorType`. The message has the step and the secret in front, then
what is wrong, what is true now, and what to do: the last column, if nothing closer is known.

| status | class | it means | next |
|---|---|---|---|
| 0 | | done | |
| 1 | `StepFailed`, or none | what nobody foresaw, or a setting that is to be mended | what the message says |
| 2 | | the command was mistyped; nothing was done | |
| 3 | | `--dry-run` found something, `--retire` an older password that logs in, `--compromised` \
a session that is left | what was printed |
"""


def settings_page() -> str:
    """Return what settings.md has to say."""
    rows = (_row(name, field) for name, field in Settings.model_fields.items())
    return f"{_SETTINGS}{''.join(rows)}{_FIELDS}{_SANDBOX}"


def command_line_page() -> str:
    """Return what command-line.md has to say."""
    sections = (f"\n## `{' '.join(words)}`\n\n```text\n{text}```\n" for words, text in _helps(("ledger-db",)))
    return f"{_COMMAND_LINE}{''.join(sections)}{_EXIT_STATUSES}{''.join(map(_failure_row, _failures()))}"


def _failures() -> list[type[StepFailed]]:
    return sorted(StepFailed.__subclasses__(), key=lambda kind: kind.exit_status)


def _failure_row(kind: type[StepFailed]) -> str:
    meaning = (kind.__doc__ or "").strip().rstrip(".")
    # What is not its own is that of the root, which says no more than its row does.
    advice = kind.next_move if "next_move" in vars(kind) else "what AWS's own words say, then again"
    return f"| {kind.exit_status} | `{kind.__name__}` | {meaning} | {advice} |\n"


PAGES = {"settings.md": settings_page, "command-line.md": command_line_page}


def main() -> None:
    """Write both pages."""
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")


def _row(name: str, field: FieldInfo) -> str:
    cells = (f"`LEDGER_DB_{name.upper()}`", _kind(field.annotation), _default(name, field), field.description)
    return f"| {' | '.join(map(str, cells))} |\n"


def _default(name: str, field: FieldInfo) -> str:
    usual = [] if field.default in {None, PydanticUndefined} else [_code(field.default)]
    presets = [f"{_code(preset[name])} in {profile}" for profile, preset in PRESETS.items() if name in preset]
    presets += [
        f"{_code(preset[name])} with pooler {pooler}"
        for pooler, preset in POOLER_PRESETS.items()
        if name in preset
    ]
    return "; ".join((*usual, *presets))


def _code(value: object) -> str:
    return f"`{str(value).lower()}`"


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(annotation))
    if get_origin(annotation) is UnionType or type(None) in get_args(annotation):
        return " or ".join(_kind(part) for part in get_args(annotation) if part is not NoneType)
    return _KINDS[annotation]


def _helps(words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield a command and its help, then those of its subcommands."""
    text = _help(words[1:])
    yield words, text
    _, _, commands = text.partition("Commands:\n")
    # Two spaces and a name; what is continued from the line before has more.
    for name in re.findall(r"^  (\S+)", commands, re.MULTILINE):
        yield from _helps((*words, name))


def _help(words: tuple[str, ...]) -> str:
    out = io.StringIO()
    # A width of its own, or the page would depend on the terminal that it was written in.
    with contextlib.redirect_stdout(out), mock.patch.dict(os.environ, {"COLUMNS": "80"}):
        status = run_command_line([*words, "--help"])
    if status != 0:
        raise RuntimeError(f"{' '.join(words)} --help ended with {status}; mend the command")
    return out.getvalue()


if __name__ == "__main__":
    main()
