"""
What does ``make run`` start?

Real servers, the Trust Ledger service, clients, and rotations of both passwords, all on this machine, until
Ctrl-C or until the time is over.  The exit status is the verdict: 0 if nobody noticed the rotations.
"""

import argparse
import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from examples.trust_ledger.workload import LedgerWorkload
from ledger_db.drill.console import DrillConsole, format_summary
from ledger_db.drill.drill import Drill, count_own_secret_reads
from ledger_db.drill.plan import DrillPlan
from ledger_db.drill.report import DrillReport
from ledger_db.drill.service import Service, listen_from, listen_on, python_command
from ledger_db.errors import LedgerDBError, ServerUnreachable
from ledger_db.sandbox import Sandbox
from ledger_db.sandbox.seed import FIRST_ROLE, SECOND_ROLE

FIRST_PORT = 8000

_POOL_SIZE = 5
_MAX_OVERFLOW = 5
# What the health endpoints ask with, so that they answer while the pool is busy.
_PROBES = 1
_CONNECTIONS_LIMIT = _POOL_SIZE + _MAX_OVERFLOW + _PROBES
_READS = ("GetSecretValue", "BatchGetSecretValue")
_PROJECT = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the drill that the command line describes; return the exit status."""
    options = _parse(arguments)
    try:
        listener = listen_on(options.port) if options.port else listen_from(FIRST_PORT)
    except ServerUnreachable as error:
        sys.stderr.write(f"{error}\n")
        return 2
    # A service manager's way to say Ctrl-C.  Without it, whatever is half started would be left as it is.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with listener:
            return _run(options, listener)
    except LedgerDBError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        # Everything was ended on the way here; only the summary is missing.
        sys.stderr.write("stopped at once, without a summary\n")
        return 130


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="examples.trust_ledger.run",
        description="A service on real servers, under load, while its passwords rotate.",
    )
    parser.add_argument("--seconds", type=float, help="end after this time; without it, Ctrl-C ends it")
    parser.add_argument("--every", type=float, default=15.0, help="seconds between rotations (%(default)s)")
    parser.add_argument(
        "--window",
        type=float,
        default=1.0,
        help="seconds for which a server knows the new password before Secrets Manager does (%(default)s)",
    )
    parser.add_argument("--port", type=int, help=f"port of the service ({FIRST_PORT}, or the next free one)")
    parser.add_argument("--clients", type=int, default=8, help="clients at once (%(default)s)")
    parser.add_argument(
        "--app", default="examples.trust_ledger.app:app", help="the service to run instead (%(default)s)"
    )
    options = parser.parse_args(arguments)
    if options.every <= options.window + 1:
        parser.error("--every has to be more than a second longer than --window, or rotations overlap")
    if options.port is not None and not 0 < options.port < 65_536:
        parser.error("--port has to be between 1 and 65535")
    if options.seconds is not None and not options.seconds >= 1:
        parser.error("--seconds has to be at least 1, or no request is sent")
    if options.clients < 1:
        parser.error("--clients has to be at least 1")
    return options


def _run(options: argparse.Namespace, listener: socket.socket) -> int:
    console = DrillConsole(connections_limit=_CONNECTIONS_LIMIT)
    console.say("Starting PostgreSQL, Redis and Secrets Manager on this machine ...")
    with Sandbox() as box:
        migrate_sandbox(box)
        plan = _make_plan(options, box)
        with make_service(options.app, listener=listener, environment=box.environment) as service:
            service.wait_ready()
            console.say(_describe(box, service, plan))
            with console:
                report = asyncio.run(_drill(box, service, plan, console=console))
            last_lines = service.last_lines()
    console.say(format_summary(report))
    if not report.ok and last_lines and report.mishap is None:
        console.say(f"The last lines of the service:\n{last_lines}")
    return 0 if report.ok else 1


def migrate_sandbox(box: Sandbox) -> None:
    """
    Do what a deployment does before it starts the service: migrate, as a role that may.

    Raises:
        ServerUnreachable: It could not be done; the message says why.
    """
    done = subprocess.run(  # noqa: S603 - the one module, run without a shell
        python_command("examples.trust_ledger.migrate"),
        cwd=_PROJECT,
        env={
            **os.environ,
            **box.environment,
            "LEDGER_DB_DATABASE_SECRET_ID": box.admin_secret_id,
            "LEDGER_DB_DATABASE_NAME": box.postgres.database,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ServerUnreachable(f"the migrations ended with status {done.returncode}:\n{done.stderr.strip()}")


def _make_plan(options: argparse.Namespace, box: Sandbox) -> DrillPlan:
    return DrillPlan(
        roles=(FIRST_ROLE, SECOND_ROLE),
        connections_limit=_CONNECTIONS_LIMIT,
        seconds=options.seconds,
        every_seconds=options.every,
        window_seconds=options.window,
        clients=options.clients,
        own_secret_reads=count_own_secret_reads(box, partial(_count_secret_reads, box)),
    )


def _count_secret_reads(box: Sandbox) -> int:
    calls = box.secrets_manager.calls()
    return sum(calls.get(operation, 0) for operation in _READS)


def make_service(app: str, *, listener: socket.socket, environment: Mapping[str, str]) -> Service:
    """
    Describe the service as it is run here.

    Args:
        app: What uvicorn serves, ``module:name``.

        listener: Where.

        environment: What leads it to its servers.
    """
    command = python_command("uvicorn", app, "--app-dir", str(_PROJECT), "--fd", str(listener.fileno()))
    return Service(
        [*command, "--no-access-log", "--log-level", "warning"],
        listener=listener,
        ready_path="/health/ready",
        environment={
            **environment,
            "LEDGER_DB_POOL_SIZE": str(_POOL_SIZE),
            "LEDGER_DB_MAX_OVERFLOW": str(_MAX_OVERFLOW),
            # Not needed to survive; with it, connections are also renewed before anybody is refused.
            "LEDGER_DB_REFRESH_INTERVAL_SECONDS": "5",
        },
    )


async def _drill(box: Sandbox, service: Service, plan: DrillPlan, *, console: DrillConsole) -> DrillReport:
    drill = Drill(
        box,
        service,
        workload=LedgerWorkload(),
        plan=plan,
        audience=console,
        count_secret_reads=partial(_count_secret_reads, box),
    )
    stop = asyncio.Event()
    running = asyncio.ensure_future(drill.run(stop))

    def end() -> None:
        if stop.is_set():
            running.cancel()
            return
        console.say("Ending: no new request, no new rotation.  Once more to stop at once.")
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end)
    return await running


def _describe(box: Sandbox, service: Service, plan: DrillPlan) -> str:
    end = "Ctrl-C ends everything" if plan.seconds is None else f"It ends by itself after {plan.seconds:g} s"
    return f"""
  the service      {service.url}
  PostgreSQL       {box.postgres.host}:{box.postgres.port}, database {box.postgres.database}
  Redis            {box.redis.host}:{box.redis.port}
  Secrets Manager  {box.secrets_manager.url}

Try it from a second terminal:
  curl -s '{service.url}/entries?limit=3'
  curl -s -X POST {service.url}/entries -H 'Idempotency-Key: mine-1' \\
       -H 'Content-Type: application/json' -d '{{"account": "me", "amount": 1250, "memo": "hello"}}'
  curl -s {service.url}/verify

{plan.clients} clients use it now, and both passwords change every {plan.every_seconds:g} s; the servers know
a new one {plan.window_seconds:g} s before Secrets Manager does.  {end}.
"""


if __name__ == "__main__":
    sys.exit(main())
