"""
Installs LocalStack into a virtual environment of its own: it wants other versions of what we want too.

    python -m localstack.install
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

from infra.package import matching_interpreter
from infra.wheels import PYTHON
from localstack.host import PROJECT

ENVIRONMENT: Final = PROJECT / "build" / "localstack"
CONSTRAINTS: Final = PROJECT / "localstack" / f"constraints-py{PYTHON.replace('.', '')}.txt"
PLUGINS: Final = PROJECT / "localstack" / "plugins"


def install(interpreter: str, environment: Path) -> None:
    """
    Make the virtual environment; its file ``.ready`` says that it is complete.

    Args:
        interpreter: Python of the version that the functions are for: they run in the same one.

        environment: Where; what is there is replaced.

    Raises:
        CalledProcessError: Something could not be installed; pip has said what.
    """
    _run(interpreter, "-m", "venv", "--clear", str(environment))
    pip = (str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps")
    _run(*pip, "-r", str(CONSTRAINTS))
    _run(*pip, str(PLUGINS))
    (environment / ".ready").touch()


def main() -> int:
    """Install, and return the exit status."""
    interpreter = matching_interpreter()
    if interpreter is None:
        sys.stderr.write(
            f"The functions run on Python {PYTHON}, and so does LocalStack here; this machine has none. "
            f"Install it, or use containers: docs/localstack.md\n"
        )
        return 1
    try:
        install(interpreter, ENVIRONMENT)
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


def _run(*command: str) -> None:
    subprocess.run(command, check=True)  # noqa: S603 - our own command, no shell


if __name__ == "__main__":
    sys.exit(main())
