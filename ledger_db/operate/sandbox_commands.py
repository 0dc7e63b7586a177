"""``ledger-db sandbox``: how does a person start, find and end real servers on this machine?"""

import contextlib
import shlex
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

import click

from ledger_db.errors import ServerUnreachable
from ledger_db.operate import running
from ledger_db.sandbox import Sandbox

_CHECK_SECONDS = 0.5


@click.group()
def sandbox() -> None:
    """Real PostgreSQL, Valkey and Secrets Manager on this machine."""


@sandbox.command()
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep data, passwords and ports in DIR for the next time.",
)
@click.option("--tls", is_flag=True, help="Both servers insist on TLS.")
def up(keep: Path | None, *, tls: bool) -> None:
    """Start the servers, and end them with Ctrl-C."""
    directory = None if keep is None else keep.expanduser().resolve()
    with (
        _interrupted_in_good_order(),
        running.Announcement(directory) as announcement,
        Sandbox(directory=directory, keep=directory is not None, tls=tls) as box,
    ):
        announcement.publish(box.environment)
        _describe(box, kept=directory is not None)
        while box.is_running:
            time.sleep(_CHECK_SECONDS)
        raise ServerUnreachable(
            "the supervisor of the servers was killed, and they ended with it; start the sandbox again"
        )


@sandbox.command()
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The sandbox that keeps its files in DIR, if several are running.",
)
def env(directory: Path | None) -> None:
    """
    Print what leads a program to the running sandbox.

    For a shell: eval "$(ledger-db sandbox env)"
    """
    click.echo(format_exports(running.find(directory).environment))


@sandbox.command()
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The sandbox that keeps its files in DIR, if several are running.",
)
def down(directory: Path | None) -> None:
    """End the running sandbox."""
    running.end(running.find(directory))


def _describe(box: Sandbox, *, kept: bool) -> None:
    security = " (TLS only)" if box.tls is not None else ""
    postgres, redis = box.postgres, box.redis
    click.echo(
        f"PostgreSQL       {postgres.host}:{postgres.port}, database {postgres.database}{security}\n"
        f"Valkey           {redis.host}:{redis.port}{security}\n"
        f"Secrets Manager  {box.secrets_manager.url}\n"
        f"Files            {box.directory}, {'kept' if kept else 'removed at the end'}\n"
        f"Ready in         {box.seconds_to_start:.2f} s; Ctrl-C ends everything.\n"
        "\n"
        'In a second terminal paste this, or type: eval "$(ledger-db sandbox env)"\n'
        "\n"
        f"{format_exports(box.environment)}"
    )


def format_exports(environment: Mapping[str, str]) -> str:
    """Return the lines for a shell that set *environment*; what is empty in it must not be set."""
    exports = [f"export {name}={shlex.quote(value)}" for name, value in environment.items() if value]
    unset = [name for name, value in environment.items() if not value]
    return "\n".join([f"unset {' '.join(unset)}", *exports])


@contextlib.contextmanager
def _interrupted_in_good_order() -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM end what runs inside, and those that follow not disturb the end."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for sign in signals:
            signal.signal(sign, signal.SIG_IGN)
        raise KeyboardInterrupt

    all_signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # What nohup or a shell's "&" has made this process ignore stays ignored.
    signals = [sign for sign in all_signals if signal.getsignal(sign) is not signal.SIG_IGN]
    before = {sign: signal.signal(sign, interrupt) for sign in signals}
    interrupted = False
    try:
        yield
    except KeyboardInterrupt:
        interrupted = True
    finally:
        # Otherwise they stay ignored: the process is ending, with status 0 and not by one more Ctrl-C.
        if not interrupted:
            for sign, handler in before.items():
                signal.signal(sign, handler)
