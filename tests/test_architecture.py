"""
Is the package built as its picture says?

The picture is docs/decisions/0008-layers.md; ``LAYERS`` is the same for a machine.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / "ledger_db"
PICTURE = PROJECT / "docs" / "decisions" / "0008-layers.md"
ROOT = PACKAGE.name

# Small things without a topic, which everybody may import; they import each other only downwards.
TOOLS: dict[str, frozenset[str] | None] = {
    "errors": frozenset(),
    "redaction": frozenset(),
    "event_log": frozenset(),
    "backoff": frozenset(),
    "forking": frozenset(),
    "background": frozenset({"errors"}),
    "variables": frozenset({"event_log"}),
}

# What each room may import of ours besides itself and the tools; None is everything.  A name with a dot is
# that module and nothing else of its folder.
LAYERS: dict[str, frozenset[str] | None] = {
    "_version": frozenset(),
    "_front_door": frozenset(),
    "answers": frozenset(),
    "settings": frozenset({"answers"}),
    "credentials": frozenset({"answers"}),
    "transactions": frozenset({"answers"}),
    "connections": frozenset({"answers", "credentials", "transactions"}),
    "signals": frozenset({"answers", "connections.server"}),
    "sqlite": frozenset({"answers", "connections", "credentials"}),
    "manager": frozenset(
        {"answers", "connections", "credentials", "settings", "signals", "sqlite", "transactions"}
    ),
    "integrations": frozenset({"answers", "connections", "credentials", "manager", "settings"}),
    "orm": frozenset({"transactions"}),
    "migrations": frozenset({"manager", "settings"}),
    "fastapi": frozenset({"answers", "connections", "credentials", "manager", "settings", "transactions"}),
    "rotation": frozenset({"answers"}),
    "stand_in": frozenset(),
    "sandbox": frozenset({"answers", "rotation", "stand_in"}),
    "testing": None,
    "drill": None,
    "operate": None,
    "__main__": frozenset({"operate"}),
    "__init__": None,
}

HEAVY = ("boto3", "botocore", "fastapi", "pydantic", "redis", "sqlalchemy", "tenacity")
MOST_LINES = 400


def modules(package: Path) -> list[Path]:
    """List the files of *package*."""
    return sorted(package.rglob("*.py"))


def layer_of(path: Path, package: Path) -> str:
    """Return the folder or the single file below *package* that *path* belongs to."""
    return path.relative_to(package).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield what is imported of ours, wherever it stands: in a function and for a type checker too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == ROOT)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield "." * node.level + (node.module or "")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == ROOT:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def allowed(target: str, layer: str) -> bool:
    """Say whether a module of *layer* may import *target*."""
    may_import = TOOLS[layer] if layer in TOOLS else LAYERS[layer]
    if may_import is None:
        return not target.startswith(".")
    if layer in LAYERS:
        may_import |= TOOLS.keys()
    return any(
        target == f"{ROOT}.{name}" or target.startswith(f"{ROOT}.{name}.") for name in {layer, *may_import}
    )


def offences(package: Path) -> list[str]:
    """Return one sentence for each import in *package* that crosses a border the wrong way."""
    found = []
    for path in modules(package):
        layer, name = layer_of(path, package), path.relative_to(package)
        if layer not in TOOLS | LAYERS:
            found.append(f"{name} belongs to no layer; give it one")
            continue
        targets = list(imports(ast.parse(path.read_text(encoding="utf-8"))))
        if path.name == "__init__.py" and f"{ROOT}._front_door.front_door" in targets:
            # Every folder may have a door; what it shows is its own.
            targets.remove(f"{ROOT}._front_door.front_door")
        found += [f"{name} may not import {target}" for target in targets if not allowed(target, layer)]
    return found


def test_every_module_imports_only_from_the_layers_below_it() -> None:
    """A reader who knows one layer knows everything that it can depend on."""
    assert offences(PACKAGE) == []


@pytest.mark.parametrize(
    ("place", "source", "expected"),
    [
        (
            "credentials/model.py",
            "from ledger_db.connections.login import Logins",
            "credentials/model.py may not import ledger_db.connections.login.Logins",
        ),
        (
            "errors.py",
            "def f():\n    import ledger_db.settings",
            "errors.py may not import ledger_db.settings",
        ),
        (
            "settings.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ledger_db import manager",
            "settings.py may not import ledger_db.manager",
        ),
        (
            "rotation/steps.py",
            "from ledger_db.credentials import provider",
            "rotation/steps.py may not import ledger_db.credentials.provider",
        ),
        ("operate/cli.py", "from ..errors import LedgerDBError", "operate/cli.py may not import ..errors"),
        (
            "redaction.py",
            "from ledger_db import ConnectionManager",
            "redaction.py may not import ledger_db.ConnectionManager",
        ),
        ("drawer.py", "", "drawer.py belongs to no layer; give it one"),
    ],
)
def test_an_import_that_crosses_a_border_is_found(
    tmp_path: Path, place: str, source: str, expected: str
) -> None:
    """The test above can fail: in functions, for types, by relative names, through the front door."""
    offender = tmp_path / place
    offender.parent.mkdir(exist_ok=True)
    offender.write_text(source)

    assert offences(tmp_path) == [expected]


def pictured_layers() -> dict[str, frozenset[str] | None]:
    """Read the picture: layers, two spaces or more, what they may import."""
    _, block, _ = re.split(r"^```(?:text\n)?", PICTURE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    layers: dict[str, frozenset[str] | None] = {}
    for line in block.splitlines():
        names, may_import = re.split(r" {2,}", line, maxsplit=1)
        targets = frozenset(may_import.split(", ")) - {"nothing"}
        everything = may_import.startswith("anything")
        layers |= dict.fromkeys(names.split(", "), None if everything else targets)
    return layers


def test_the_picture_shows_what_is_tested() -> None:
    """Who reads the decision reads the rule that is in force."""
    assert pictured_layers() == TOOLS | LAYERS


def heavy_modules_after(statement: str) -> set[str]:
    """Run *statement* in a Python of its own, and return which of the heavy packages it has loaded."""
    script = f"{statement}\nimport sys\nprint(*[name for name in {HEAVY} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    """A program that only wants an error class does not wait for drivers, AWS or a web framework."""
    assert heavy_modules_after("import ledger_db; ledger_db.LoginRefused") == set()


def test_the_names_of_the_front_door_load_what_they_need() -> None:
    """The test above can fail: what is loaded on demand is seen, and boto3 not even then."""
    loaded = heavy_modules_after("from ledger_db import ConnectionManager")

    assert {"pydantic", "sqlalchemy"} <= loaded
    assert not {"boto3", "botocore", "fastapi"} & loaded


def test_folders_are_two_levels_and_never_three() -> None:
    """There is one place to look for a thing: a folder and a file in it."""
    deep = [str(path) for path in modules(PACKAGE) if len(path.relative_to(PACKAGE).parts) > 2]

    assert deep == []


def test_init_files_are_empty_but_for_the_front_doors() -> None:
    """What a folder has is seen by looking into the folder."""
    full = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("__init__.py") if path.stat().st_size}

    assert full == {
        f"{folder}__init__.py" for folder in ("", "fastapi/", "migrations/", "sandbox/", "testing/")
    }


@pytest.mark.parametrize("folder", ["ledger_db", "examples", "benchmarks"])
def test_a_file_is_one_idea(folder: str) -> None:
    """Every file fits into a head: it says in its first lines what it is for, and ends before long."""
    for path in modules(PROJECT / folder):
        source = path.read_text(encoding="utf-8")
        assert len(source.splitlines()) <= MOST_LINES, path
        assert not source or ast.get_docstring(ast.parse(source)), f"{path} does not say what it is for"
