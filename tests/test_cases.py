"""Do the cases that are still scripts name what is there?"""

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

CASES = sorted(path for path in (Path(__file__).parent / "cases").rglob("*.py"))


def names_of_ours(path: Path) -> Iterator[tuple[str, str]]:
    """Yield what *path* imports of this project, as module and name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.split(".")[0]
            in {
                "infra",
                "ledger_db",
                "tests",
            }
        ):
            yield from ((node.module, alias.name) for alias in node.names)


def is_there(module: str, name: str) -> bool:
    """Say whether *module* has *name*, as an attribute or as a module in it."""
    if hasattr(import_module(module), name):
        return True
    try:
        import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return False
    return True


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_case_imports_what_exists(path: Path) -> None:
    """A case that fails shows what is wrong with the product, not that something has moved since."""
    missing = [f"{module}.{name}" for module, name in names_of_ours(path) if not is_there(module, name)]

    assert missing == []
