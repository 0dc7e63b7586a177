"""How does a test run the tests of somebody else's project?"""

import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path

# Plugins of this project that a stranger need not have.
_WITHOUT = ("randomly", "timeout", "schemathesis", "cacheprovider")
_PLUGIN = "ledger_db.testing.plugin"


def run_pytest(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """
    Run pytest in *folder*, in a process of its own that knows nothing of this one's databases.

    Args:
        folder: Of the project.

        arguments: Of pytest.

        environment: More variables.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LEDGER_DB_", "AWS_"))}
    options = [option for name in _WITHOUT for option in ("-p", f"no:{name}")]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, *_loading(), *arguments],
        cwd=folder,
        env={**clean, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def _loading() -> tuple[str, ...]:
    # Registered by the installation as a rule, and twice is an error.  Where that was made before the plugin
    # existed it has to be named.
    installed = any(point.value == _PLUGIN for point in entry_points(group="pytest11"))
    return () if installed else ("-p", _PLUGIN)
