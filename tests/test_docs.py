"""Is what the documents say true, and does nothing in the repository say what it should not?"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.generate import PAGES
from ledger_db.sandbox import Sandbox

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / "ledger_db"
README = PROJECT / "README.md"
OPERATIONS = PROJECT / "docs" / "operations.md"

LOGGING = ("log", "debug", "info", "warning", "error", "exception", "critical")
# Written in pieces: this file is one of those that are searched.
UNWANTED = {
    "a path of somebody's machine": r"(?<![\w.-])/(?:work|home|Users|root)" + r"/\w",
    "the host of a package registry": "py" + r"pi\.org|python" + "hosted",
    "a note to oneself": r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b",
    "how the work is organised": r"\bissue " + r"#?\d|\bsub" + r"agent|\bsprint" + r" \d|\bwork item" + r"\b",
}


def repository_files() -> list[Path]:
    """List what is or would be committed."""
    # In a container the folder may belong to somebody else, which git would refuse.
    command = [
        "git",
        "-c",
        "safe.directory=*",
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "-z",
    ]
    listed = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    files = [PROJECT / name for name in listed.split("\0") if name]
    return [path for path in files if path.is_file()]


def documents() -> list[Path]:
    """List the documents."""
    return [path for path in repository_files() if path.suffix == ".md"]


def code_blocks(document: Path, language: str) -> list[str]:
    """Return the blocks of *document* that are marked as *language*."""
    return re.findall(
        rf"^```{language}\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def anchors(document: Path) -> set[str]:
    """Return what a link may name after the #, as it is made out of headings."""
    headings = re.findall(r"^#+ +(.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def clean_environment(box: Sandbox) -> dict[str, str]:
    """Return the environment of a stranger's shell that leads to *box* and nowhere else."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("LEDGER_DB_", "AWS_"))}
    return {**mine, **box.environment}


def run_python(*arguments: str, box: Sandbox, folder: Path) -> str:
    """Run Python in *folder* as a stranger would; return what it printed, and allow no word on stderr."""
    run = subprocess.run(
        [sys.executable, *arguments],
        env=clean_environment(box),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, ""), run.stdout
    return run.stdout


def run_script(source: str, *, box: Sandbox, folder: Path) -> str:
    """Run *source* as a file of its own, with warnings as errors; return what it printed."""
    (folder / "script.py").write_text(source, encoding="utf-8")
    return run_python("-W", "error", "script.py", box=box, folder=folder)


def test_the_readme_shows_the_two_commands() -> None:
    """A stranger sees at once how to run the project and how to test it."""
    shown = [line for block in code_blocks(README, "sh") for line in block.splitlines()]

    assert "make run" in [line.split("#")[0].strip() for line in shown]
    assert "make test" in [line.split("#")[0].strip() for line in shown]


def test_links_between_documents_lead_somewhere() -> None:
    """No link of our own ends nowhere, neither at a file nor at a heading."""
    links, broken = 0, []
    for document in documents():
        for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
            if re.match(r"[a-z]+:", target):
                continue
            links += 1
            path, _, anchor = target.partition("#")
            there = document.parent / path if path else document
            if not there.exists() or (anchor and anchor not in anchors(there)):
                broken.append(f"{document.name}: {target}")

    assert broken == []
    assert links > 10


def test_every_make_target_that_is_mentioned_exists() -> None:
    """Nobody types a command from a document and is told that there is no such target."""
    targets = set(
        re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    mentioned = set()
    for document in documents():
        text = document.read_text(encoding="utf-8")
        mentioned |= set(re.findall(r"`make ([a-z-]+)", text))
        mentioned |= {
            name for block in code_blocks(document, "sh") for name in re.findall(r"make ([a-z-]+)", block)
        }

    assert mentioned <= targets
    assert {"run", "test"} <= mentioned


def alternatives(node: ast.expr) -> list[tuple[dict[str, bool], ast.expr]]:
    """Return each value that *node* may have, with the conditions that lead to it."""
    if isinstance(node, ast.IfExp):
        condition = ast.dump(node.test)
        return [
            ({condition: is_true, **more}, value)
            for is_true, branch in ((True, node.body), (False, node.orelse))
            for more, value in alternatives(branch)
        ]
    return [({}, node)]


def events_of(call: ast.Call, function: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the events that a call of a logger's method in *function* writes, each with its level."""
    assert isinstance(call.func, ast.Attribute)
    method, arguments = call.func.attr, list(call.args)
    if method == "log":
        levels = alternatives(arguments.pop(0))
        named = [(when, value.attr.lower()) for when, value in levels if isinstance(value, ast.Attribute)]
    else:
        named = [({}, "error" if method in {"exception", "critical"} else method)]
    events = [
        (when, str(value.value))
        for when, value in alternatives(arguments[0])
        if isinstance(value, ast.Constant)
    ]
    # Chosen before: then it is one of those that the function names.
    for when, event in events or [({}, event) for event in event_names(function)]:
        for level_when, level in named:
            if all(level_when.get(condition, is_true) == is_true for condition, is_true in when.items()):
                yield event, level


def event_names(function: ast.AST) -> Iterator[str]:
    """Yield every text in *function* that is written like the name of an event."""
    for node in ast.walk(function):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.fullmatch(r"[a-z_]+\.[a-z_]+", node.value)
        ):
            yield node.value


def logger_calls(function: ast.AST) -> Iterator[ast.Call]:
    """Yield every call of a logger's method in *function*."""
    for node in ast.walk(function):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "log"
            and node.func.attr in LOGGING
        ):
            yield node


def logged_events() -> dict[str, set[str]]:
    """Return every event that the package logs, and at which levels."""
    events: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for call in logger_calls(function):
                    for name, level in events_of(call, function):
                        events.setdefault(name, set()).add(level)
    return events


def documented_events() -> dict[str, set[str]]:
    """Return every event that docs/operations.md has a row for, and the levels in it."""
    rows = re.findall(
        r"^\| `([a-z_]+\.[a-z_]+)` \| ([a-z, ]+) \|", OPERATIONS.read_text(encoding="utf-8"), re.MULTILINE
    )
    return {name: set(levels.split(", ")) for name, levels in rows}


def test_every_log_event_is_documented_and_every_documented_one_exists() -> None:
    """Whoever finds an event in a log finds out in operations.md what to do."""
    logged = logged_events()

    assert logged == documented_events()
    assert {"credentials.rotated", "credentials.stale", "login.given_up"} <= set(logged)


def test_the_example_of_the_readme_runs_before_and_after_a_rotation(box: Sandbox, tmp_path: Path) -> None:
    """What the README shows first is a whole program, and works."""
    example = code_blocks(README, "python")[0]
    first = run_script(example, box=box, folder=tmp_path)
    box.rotate_database("alternating-users")
    box.rotate_redis()
    second = run_script(example, box=box, folder=tmp_path)

    assert int(second.split()[0]) == int(first.split()[0]) + 1


def test_every_block_of_python_compiles() -> None:
    """No example has a typing error in it."""
    blocks = [(path, block) for path in documents() for block in code_blocks(path, "python")]
    for path, block in blocks:
        compile(block, str(path), "exec")

    assert len(blocks) > 3


@pytest.mark.parametrize("name", PAGES)
def test_a_written_page_is_not_stale(name: str) -> None:
    """The tables of settings and commands say what the code says; mend with: python docs/generate.py."""
    assert (PROJECT / "docs" / name).read_text(encoding="utf-8") == PAGES[name]()


def findings(text: str) -> list[str]:
    """Return what *text* should not hold."""
    return [
        f"{what}: {match.group()}"
        for what, pattern in UNWANTED.items()
        for match in re.finditer(pattern, text)
    ]


def test_the_repository_speaks_only_of_itself() -> None:
    """Nothing in it is about the machine or the way that it was made."""
    found = []
    for path in repository_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(PROJECT)}: {finding}" for finding in findings(text)]

    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "see /ho" + "me/ann/project",
        "pip install -i https://py" + "pi.org/simple",
        "# TO" + "DO",
        "fixes issue " + "#12",
    ],
)
def test_what_should_not_be_there_is_found(text: str) -> None:
    """The test above can fail."""
    assert len(findings(text)) == 1
