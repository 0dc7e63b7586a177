"""
What a package shows, imported when it is first used.

A front door names what it shows once, as imports that only a type checker executes.  The running program
looks there too: into the code that Python compiled of those lines, as `modulefinder` does, so that it works
where no source is installed.
"""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import CodeType

from ledger_db.errors import ConfigurationError

_PROJECT = __name__.partition(".")[0]


def front_door(
    package: str, *, extra: str = "", needs: Mapping[str, str] | None = None
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """
    Return ``__getattr__`` and ``__dir__`` for the module *package*.

    Args:
        package: ``__name__`` of the ``__init__.py`` that calls this.

        extra: The extra of the distribution that installs what the package needs.

        needs: Those distributions' modules, each with the name that a person knows it by.
    """
    # The caller's own code, whichever loader has brought it: source, a zip, a frozen program.
    code = sys._getframe(1).f_code  # noqa: SLF001 - as collections and enum do it
    homes: dict[str, str] = {}

    def names() -> list[str]:
        # At the first look: whoever only passes through on the way to a module below does not pay for it.
        if not homes:
            homes.update(_shown_by(code))
        return sorted(homes)

    def find(name: str) -> object:
        if name == "__all__":
            return [name for name in names() if not name.startswith("_")]
        if name not in names():
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            value = getattr(import_module(homes[name]), name)
        except ModuleNotFoundError as error:
            known_as = (needs or {}).get((error.name or "").partition(".")[0])
            if known_as is None:
                raise
            raise ConfigurationError(
                f"{known_as} is not installed; pip install '{_PROJECT.replace('_', '-')}[{extra}]'"
            ) from error
        setattr(sys.modules[package], name, value)
        return value

    return find, names


def _shown_by(code: CodeType) -> dict[str, str]:
    """Return each name that *code* imports from a module of ours, with that module."""
    import dis  # noqa: PLC0415 - a program that uses no front door does not wait for it

    shown: dict[str, str] = {}
    module = ""
    for step in dis.get_instructions(code):
        if step.opname == "IMPORT_NAME":
            module = step.argval
        elif step.opname == "IMPORT_FROM" and module.startswith(f"{_PROJECT}.") and module != __name__:
            shown[step.argval] = module
    return shown
