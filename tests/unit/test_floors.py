"""Is the lowest that we allow the lowest that was run?"""

import tomllib
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = Path(__file__).parents[2]
# What brings tests wants a newer one than the plugin does.
NOT_RUN = {"ledger-db", "pytest"}


def test_what_is_allowed_was_run() -> None:
    """Each floor is the version that `make test-oldest` installs."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    asked = map(Requirement, chain(project["dependencies"], *project["optional-dependencies"].values()))
    floors = {
        canonicalize_name(each.name): Version(bound.version)
        for each in asked
        for bound in each.specifier
        if bound.operator == ">=" and each.name not in NOT_RUN
    }
    lines = (PROJECT / "constraints-lowest.txt").read_text().splitlines()[1:]
    pins = {canonicalize_name(pin.name): pin.specifier for pin in map(Requirement, lines)}

    assert {name: str(pins[name]) for name, floor in floors.items() if floor not in pins[name]} == {}
