"""Does each front door show what it says, under the address that it says, and only when asked?"""

import inspect
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

import ledger_db

DOORS = ("ledger_db", "ledger_db.fastapi", "ledger_db.migrations", "ledger_db.sandbox", "ledger_db.testing")
PACKAGE = Path(ledger_db.__file__).parent
NAMES = [(door, name) for door in DOORS for name in dir(import_module(door))]


def python(code: str, *options: str, cwd: Path) -> str:
    """Run *code* in a Python of its own, in the folder *cwd*, and return what it printed."""
    run = subprocess.run(
        [sys.executable, *options, "-c", code], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.parametrize(("door", "name"), NAMES)
def test_a_name_that_is_shown_is_there(door: str, name: str) -> None:
    """What a door announces can be imported from it, and no module of the same name stands in its way."""
    shown = getattr(import_module(door), name)

    assert not inspect.ismodule(shown)


@pytest.mark.parametrize(("door", "name"), NAMES)
def test_a_public_class_carries_its_public_address(door: str, name: str) -> None:
    """A traceback, a repr and a pickle name a class as its user imports it."""
    shown = getattr(import_module(door), name)

    assert not inspect.isclass(shown) or shown.__module__ == door


@pytest.mark.parametrize("door", DOORS)
def test_a_door_says_no_in_the_words_of_python(door: str) -> None:
    """A misspelt name is an AttributeError of the door that was asked."""
    with pytest.raises(AttributeError, match=f"module '{door}' has no attribute 'ConectionManager'"):
        import_module(door).ConectionManager  # noqa: B018 - looking is what fails


def test_everything_can_be_imported_with_a_star() -> None:
    """In a notebook one line is enough, and it brings what the door shows."""
    names = python("from ledger_db import *; print(*sorted(globals()))", cwd=PACKAGE.parent).split()

    assert set(dir(ledger_db)) - {"__version__"} <= set(names)
    # A notebook may have a version of its own.
    assert "__version__" not in names


@pytest.mark.parametrize(
    ("statement", "package", "extra"),
    [
        ("from ledger_db.fastapi import SessionDep", "fastapi", "FastAPI"),
        ("from ledger_db.fastapi import lifespan", "starlette", "FastAPI"),
        ("from ledger_db.migrations import run_migrations", "alembic", "Alembic"),
    ],
)
def test_what_is_not_installed_is_named_with_its_extra(statement: str, package: str, extra: str) -> None:
    """A door whose packages are missing says what to install."""
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        f"try:\n    {statement}\nexcept Exception as error:\n    print(type(error).__name__, error)"
    )
    said = python(code, cwd=PACKAGE.parent)

    assert said.startswith(f"ConfigurationError {extra} is not installed; pip install 'ledger-db[")


def test_a_door_needs_neither_its_source_nor_a_folder(tmp_path: Path) -> None:
    """A program that is shipped as a zip of bytecode finds every name too."""
    python(f"import compileall; compileall.compile_dir({str(PACKAGE)!r}, quiet=1, legacy=True)", cwd=tmp_path)
    bundle = tmp_path / "bundle.zip"
    try:
        with zipfile.ZipFile(bundle, "w") as archive:
            for path in PACKAGE.rglob("*.pyc"):
                if path.parent.name != "__pycache__":
                    archive.write(path, path.relative_to(PACKAGE.parent))
    finally:
        for path in PACKAGE.rglob("*.pyc"):
            if path.parent.name != "__pycache__":
                path.unlink()
    code = (
        f"import sys; sys.path.insert(0, {str(bundle)!r})\n"
        "import ledger_db; print(ledger_db.LoginRefused, ledger_db.__file__)"
    )
    said = python(code, "-P", cwd=tmp_path)

    assert said == f"<class 'ledger_db.LoginRefused'> {bundle / 'ledger_db' / '__init__.pyc'}"
