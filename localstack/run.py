"""
What does ``make localstack`` start?

PostgreSQL and Valkey of the sandbox, and LocalStack in the place of its Secrets Manager, until Ctrl-C.  Other
terminals find them with ``ledger-db sandbox env``.
"""

import argparse
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from types import FrameType

from infra.wheels import PackageError
from ledger_db.errors import LedgerDBError, ServerUnreachable
from ledger_db.operate.running import Announcement
from ledger_db.operate.sandbox_commands import format_exports
from ledger_db.sandbox import Sandbox
from ledger_db.sandbox.ports import is_free
from localstack import seed
from localstack.host import READY_HOOKS, LocalStack

PORT = 4566
"""LocalStack's own; another one if it is taken."""

_CHECK_SECONDS = 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything until it is interrupted; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="localstack.run", description="LocalStack, PostgreSQL and Valkey on this machine."
    )
    parser.add_argument("--port", type=int, help=f"port of LocalStack ({PORT}, or any free one)")
    given = parser.parse_args(arguments)
    port = given.port or (PORT if is_free(PORT) else None)
    signs = [sign for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if _is_wanted(sign)]

    def interrupt(number: int, frame: FrameType | None) -> None:
        # Those that follow shall not disturb the end.
        for sign in signs:
            signal.signal(sign, signal.SIG_IGN)
        raise KeyboardInterrupt

    for sign in signs:
        signal.signal(sign, interrupt)
    try:
        _run(port)
    except KeyboardInterrupt:
        return 0
    except (LedgerDBError, PackageError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _is_wanted(sign: signal.Signals) -> bool:
    # What nohup or a shell's "&" has made this process ignore stays ignored.
    return signal.getsignal(sign) is not signal.SIG_IGN


def _run(port: int | None) -> None:
    with Announcement(None) as announcement, Sandbox() as box:
        began = time.monotonic()
        # In the folder of the sandbox, whose supervisor removes it however this process ends.
        variables = seed.write(box, box.directory / "code")
        with LocalStack(
            box.directory / "localstack", port=port, environment=variables, hooks=READY_HOOKS
        ) as aws:
            environment = environment_of(box, aws)
            announcement.publish(environment)
            _describe(box, aws, environment, seconds=time.monotonic() - began)
            while box.is_running and aws.is_running:
                time.sleep(_CHECK_SECONDS)
            raise ServerUnreachable("a server has ended by itself, and the others with it; start them again")


def environment_of(box: Sandbox, aws: LocalStack) -> dict[str, str]:
    """Return what leads an application to the servers of *box* by way of *aws*."""
    own = {name: value for name, value in box.environment.items() if not name.startswith("AWS_")}
    return {**own, **aws.environment}


def _describe(box: Sandbox, aws: LocalStack, environment: Mapping[str, str], *, seconds: float) -> None:
    exports = format_exports(environment)
    sys.stdout.write(
        f"PostgreSQL  {box.postgres.host}:{box.postgres.port}, database {box.postgres.database}\n"
        f"Valkey      {box.redis.host}:{box.redis.port}\n"
        f"LocalStack  {aws.url}, log {aws.log_file}\n"
        f"Ready in    {seconds:.1f} s after the servers; Ctrl-C ends everything.\n"
        "\n"
        'In a second terminal paste this, or type: eval "$(ledger-db sandbox env)"\n'
        "\n"
        f"{exports}\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
