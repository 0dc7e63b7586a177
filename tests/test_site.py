"""Is the site whole: every public name, every link, and nothing from another host?"""

import importlib
import inspect
import re
import subprocess
import sys
import tomllib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("furo", reason="the site is made where the group 'docs' is installed")
from bs4 import BeautifulSoup, Tag

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / "ledger_db"

# What a browser loads by itself; a link is followed by a person.
LOADED = {"audio", "embed", "iframe", "image", "img", "link", "object", "script", "source", "video"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` makes it: no link between pages or names is broken, or this fails."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", "docs"]
    made = subprocess.run(
        [*command, "-d", str(folder / "doctrees"), ".", str(folder / "site")],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return folder / "site"


def doors() -> Iterator[str]:
    """Yield each module that has public names: those with a front door."""
    for path in PACKAGE.rglob("__init__.py"):
        if "= front_door(" in path.read_text(encoding="utf-8"):
            yield ".".join(path.parent.relative_to(PROJECT).parts)


def public_names() -> Iterator[str]:
    """Yield the names that a front door shows, and those of the methods and properties of its classes."""
    shown = {
        f"{door}.{name}": getattr(module, name)
        for door in doors()
        for module in [importlib.import_module(door)]
        for name in module.__all__
        if not name.startswith("_")
    }
    classes = {value for value in shown.values() if inspect.isclass(value)}
    for name, value in shown.items():
        yield name
        if inspect.isclass(value):
            # What it has from another one of them stands there.
            own = [each for each in value.__mro__ if each is value or each not in classes]
            yield from (f"{name}.{member}" for each in own for member in members(each))


def members(value: type[Any]) -> Iterator[str]:
    """Yield the public methods and properties that a class of ours has by itself."""
    if value.__module__.startswith("ledger_db"):
        for name, member in vars(value).items():
            called = inspect.isroutine(member) or isinstance(member, (property, classmethod, staticmethod))
            if called and not name.startswith("_"):
                yield name


def inventory(site: Path) -> dict[str, str]:
    """Return every name of Python that the site explains, with the page."""
    packed = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    rows = re.findall(
        r"^(\S+) py:\S+ \S+ (\S+?)(?:#\S*)? .*$", zlib.decompress(packed).decode(), re.MULTILINE
    )
    return dict(rows)


def pages(site: Path) -> dict[Path, BeautifulSoup]:
    """Return every page."""
    return {
        path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in site.rglob("*.html")
    }


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    """Whoever may import a name, or call a method of what it names, finds it explained."""
    names, explained = set(public_names()), inventory(site)

    assert names - explained.keys() == set()
    assert {explained[name].split("/")[:2] == ["docs", "api"] for name in names} == {True}
    assert len(names) > 200


def test_nothing_in_the_reference_is_without_a_word(site: Path) -> None:
    """A name alone explains nothing."""
    silent, explained = [], 0
    for path in (site / "docs" / "api").glob("*.html"):
        for heading in BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").select(
            "dl.py > dt[id]"
        ):
            body = heading.find_next_sibling("dd")
            explained += 1
            # A field list is what autodoc knows by itself.
            if body is None or body.find("p", recursive=False) is None:
                silent.append(heading["id"])

    assert silent == []
    assert explained > 200


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    """The site can be read where there is no other one, and tells nobody who reads it."""
    foreign = [
        f"{path.name}: {value}"
        for path, page in pages(site).items()
        for tag in page.find_all(LOADED)
        for value in map(str, tag.attrs.values())
        if re.match(r"(https?:)?//", value)
    ]
    foreign += [
        f"{path.name}: {found}"
        for path in site.rglob("*.css")
        for found in re.findall(
            r"(?:url\(|@import)\s*['\"]?(?:https?:)?//[^)'\"]+", path.read_text(encoding="utf-8")
        )
    ]

    assert foreign == []


def test_every_link_inside_the_site_leads_somewhere(site: Path) -> None:
    """Neither a page nor a place on it is missing, whoever has written the link."""
    made = pages(site)
    places = {path: {str(tag["id"]) for tag in page.select("[id]")} for path, page in made.items()}
    broken, links = [], 0
    for path, page in made.items():
        for tag in page.select("a[href]"):
            target, _, place = href(tag).partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            links += 1
            there = (path.parent / target).resolve() if target else path
            if not there.exists() or (place and there in places and place not in places[there]):
                broken.append(f"{path.name}: {href(tag)}")

    assert broken == []
    assert links > 1000


def href(tag: Tag) -> str:
    """Return where a link leads."""
    return str(tag["href"])


def test_the_search_knows_the_guides_and_the_names(site: Path) -> None:
    """It works without a server: all that it needs is one script of the site's own."""
    index = (site / "searchindex.js").read_text(encoding="utf-8")

    assert index.startswith("Search.setIndex(")
    assert '"docs/from-caching-client"' in index
    assert "ConnectionManager" in index


def test_the_distributions_carry_nothing_of_the_site() -> None:
    """Who installs the package gets the package: each name is anchored, and none is a folder of pages."""
    build = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]

    assert build["targets"]["wheel"] == {"packages": ["ledger_db"]}
    assert build["targets"]["sdist"] == {"include": ["/ledger_db", "/README.md", "/CHANGELOG.md", "/LICENSE"]}
