"""
The command ``ledger-db``: where does a person at a terminal start?

Every group of commands is a module of its own that has a click command; `_COMMANDS` lists them.
"""

import importlib
import logging
import sys

from ledger_db.errors import LedgerDBError

_COMMANDS = (
    ("rotate", "ledger_db.operate.rotate_commands"),
    ("sandbox", "ledger_db.operate.sandbox_commands"),
)
"""Name of a command and the module that has it, under the same name."""

_MISSING_EXTRA = 2


def main(arguments: list[str] | None = None) -> int:
    """
    Run the command line.

    Args:
        arguments: Without the program's name; what the shell gave if None.

    Returns:
        The exit status: 0, or 1 for what the user has to mend, or 2 for a command that was mistyped.
    """
    try:
        import click  # noqa: PLC0415 - an extra: the library works without it
    except ImportError:
        sys.stderr.write(
            "ledger-db needs the extra 'cli' for its command line; pip install 'ledger-db[cli]'\n"
        )
        return _MISSING_EXTRA
    # A person reads the command's own words; without this, Python prints the bare names of log events.
    logging.getLogger("ledger_db").addHandler(logging.NullHandler())
    program = click.Group(
        "ledger-db",
        help="Connections that survive the rotation of their passwords.",
        # Every command below has it too.
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    click.version_option(package_name="ledger-db")(program)
    for name, module in _COMMANDS:
        program.add_command(getattr(importlib.import_module(module), name))
    try:
        status = program.main(args=arguments, prog_name="ledger-db", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 1
    except LedgerDBError as error:
        click.echo(f"Error: {error}", err=True)
        return 1
    # click hands back what the command returned, or the status of --help.
    return status if isinstance(status, int) else 0


if __name__ == "__main__":
    sys.exit(main())
