"""
Holds LocalStack to the conformance suite of the Secrets Manager stand-in.

    python -m pytest -p tests.localstack.conformance tests/contract

A plugin: it starts LocalStack before the suite looks where its targets are, leaves only the tests that have
LocalStack for a target, and marks those that are known to differ.
"""

import os
import tempfile
from pathlib import Path

import pytest

from localstack.host import LocalStack
from tests.localstack.differences import DIFFERENCES

_TARGET = "localstack"
_RUNNING = pytest.StashKey[tuple[LocalStack, "tempfile.TemporaryDirectory[str]"]]()


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Start LocalStack, and tell the suite."""
    folder = tempfile.TemporaryDirectory(prefix="ledger-db-localstack-")
    running = LocalStack(Path(folder.name).resolve() / "localstack")
    running.start()
    early_config.stash[_RUNNING] = running, folder
    os.environ["LEDGER_DB_CONTRACT_TARGETS"] = f"{_TARGET}={running.url}"


def pytest_unconfigure(config: pytest.Config) -> None:
    """End LocalStack."""
    running, folder = config.stash[_RUNNING]
    running.close()
    folder.cleanup()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave LocalStack's tests, and mark the known differences."""
    ours = [item for item in items if _is_for_localstack(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in ours])
    items[:] = ours
    known = set()
    for item in ours:
        name = item.name.replace(f"[{_TARGET}-", "[").replace(f"[{_TARGET}]", "")
        for key in {name, name.partition("[")[0]} & set(DIFFERENCES):
            known.add(key)
            item.add_marker(pytest.mark.xfail(reason=DIFFERENCES[key], strict=True))
    # Else a test that was given another name would take its line out of force, and nobody would see it.
    is_whole = any(Path(argument).name == "contract" for argument in config.args)
    if is_whole and known != set(DIFFERENCES):
        raise pytest.UsageError(f"no test is called {', '.join(sorted(set(DIFFERENCES) - known))}")


def _is_for_localstack(item: pytest.Item) -> bool:
    case = getattr(item, "callspec", None)
    return case is not None and case.params.get("target") == _TARGET
