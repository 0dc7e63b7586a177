"""How does a drill look on a screen, and in a file?"""

from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console

from ledger_db.drill.plan import Progress
from ledger_db.drill.report import DrillReport, Latency, RotationFigures

if TYPE_CHECKING:
    from rich.status import Status

HEADER = (
    f"{'#':>3}  {'strategy':<17}  {'version':<8}  {'requests':>8}  {'failed':>6}  "
    f"{'before':>13}  {'during':>13}  {'connections':>11}  {'reads':>5}"
)

LEGEND = """\
before, during: how long requests took, half of them and 99 of 100, in milliseconds
connections: the most to PostgreSQL, and what the pool allows; reads: of secrets, by the service
"""


class DrillConsole:
    """
    Prints a drill while it runs: a line for each rotation, and on a terminal a last line that keeps changing.

    In a file or a pipe, where nothing can be overwritten, there are only the lines.
    """

    def __init__(self, *, connections_limit: int, console: Console | None = None) -> None:
        """
        Prepare to print.

        Args:
            connections_limit: What the pool of the service may open, for comparison.

            console: Where to; standard output if None.
        """
        self._connections_limit = connections_limit
        self._console = console or Console()
        self._status: Status | None = None

    def __enter__(self) -> Self:
        self.say(LEGEND)
        self.say(HEADER)
        if self._console.is_terminal:
            self._status = self._console.status("starting")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def say(self, text: str) -> None:
        """Print *text* as it is: not wrapped, not coloured, no markup found in it."""
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)

    def rotated(self, figures: RotationFigures) -> None:
        """Print the line of one rotation."""
        self.say(format_rotation(figures, connections_limit=self._connections_limit))

    def progressed(self, progress: Progress) -> None:
        """Change the last line of a terminal."""
        if self._status is not None:
            self._status.update(format_progress(progress))


def format_rotation(figures: RotationFigures, *, connections_limit: int) -> str:
    """Put one rotation into one line that fits under ``HEADER``."""
    connections = f"{figures.connections_most}/{connections_limit}"
    return (
        f"{figures.number:>3}  {figures.strategy:<17}  {figures.version[:8]:<8}  {figures.requests:>8}  "
        f"{figures.failed:>6}  {_format_latency(figures.before):>13}  {_format_latency(figures.during):>13}  "
        f"{connections:>11}  {figures.secret_reads:>5}"
    )


def format_progress(progress: Progress) -> str:
    """Put where a drill is into half a line."""
    if progress.rotating:
        doing = "rotating now"
    elif progress.next_rotation_seconds is None:
        doing = "no more rotation"
    else:
        doing = f"next rotation in {progress.next_rotation_seconds:.0f} s"
    return f"{progress.seconds:.0f} s: {progress.requests} requests, {progress.failed} failed; {doing}"


def format_summary(report: DrillReport) -> str:
    """Put a whole drill into a few lines, the verdict last."""
    left = "?" if report.connections_left is None else report.connections_left
    most = "?" if report.connections_most is None else report.connections_most
    totals = (
        f"{report.requests} requests in {report.seconds:.0f} s, {report.failed} failed; "
        f"rotations of each password: {len(report.rotations)}; "
        f"connections to PostgreSQL: most {most} of {report.connections_limit}, left behind {left}"
    )
    lines = [totals, *(f"  failed: {failure}" for failure in report.failures)]
    problems = report.problems()
    if problems:
        lines += ["FAILED:", *(f"  - {problem}" for problem in problems)]
    else:
        lines.append("PASSED: no request failed, everything acknowledged is there, nothing was left behind.")
    return "\n".join(lines)


def _format_latency(latency: Latency) -> str:
    return f"{_format_ms(latency.p50_ms)} / {_format_ms(latency.p99_ms)}"


def _format_ms(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds:.1f}"
