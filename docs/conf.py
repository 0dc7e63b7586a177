"""
How Sphinx makes the site: `make docs`.

Its sources are the documents where they stand, the README as the first page, so that a link leads to the same
place here and on the repository's host.  Nothing on a page comes from another host.
"""

import ast
import logging
import re
import sys
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import desc, desc_parameter
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from ledger_db import __version__ as version  # noqa: E402 - what is documented is what stands here

DOORS = ("ledger_db", "ledger_db.fastapi", "ledger_db.migrations", "ledger_db.sandbox", "ledger_db.testing")
"""What has public names.  A page of `docs/api` is about each."""

# The theme's accessible-pygments has every logger write all it has to say.
logging.getLogger("alembic").setLevel(logging.WARNING)

project = "ledger_db"
release = version
project_copyright = "ledger_db's authors, Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = ["*.md", "docs/**.md", "examples/trust_ledger/README.md"]
exclude_patterns = [
    "**/.*",
    "benchmarks",
    "build",
    "dist",
    "infra",
    "ledger_db",
    "localstack",
    "docs/site",
    "tests",
]

html_theme = "furo"
html_title = f"{project} {version}"
html_copy_source = False
html_show_sphinx = False
# The site's own address leads to the README.
html_extra_path = ["site/index.html"]

# The anchors that the repository's host makes of headings.
myst_heading_anchors = 4

autoclass_content = "both"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_typehints = "description"
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
napoleon_use_ivar = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
# What docstrings name in single backticks: a link where there is something, code where there is not.
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [
    # Other projects' names: to link to them their sites would have to be asked at each build.
    (r"py:\w+", r"(?!ledger_db\.).*"),
    # Variables of types.
    (r"py:\w+", r"ledger_db\.[\w.]+\.(T|Model|Any\w+|Some\w+)"),
]


def add_navigation(app: Sphinx, document: str, source: list[str]) -> None:
    """Add the order of the pages to the first one, which is the README and has none of its own."""
    if document == root_doc:
        source[0] += (Path(app.confdir) / "site" / "navigation.md").read_text(encoding="utf-8")


def let_doors_know_what_they_show(app: Sphinx) -> None:
    """Have autodoc find what is written beside a name at home under the door that shows it."""
    for name in DOORS:
        door = ModuleAnalyzer.for_module(name)
        door.analyze()
        imports = (node for node in ast.walk(ast.parse(door.code)) if isinstance(node, ast.ImportFrom))
        for home in (node.module for node in imports if node.module and node.module.startswith(project)):
            shown = ModuleAnalyzer.for_module(home)
            shown.analyze()
            first = len(door.tagorder)
            door.attr_docs.update(shown.attr_docs)
            door.tagorder.update({tag: first + place for tag, place in shown.tagorder.items()})


def keep_colons(app: Sphinx) -> None:
    """Keep napoleon from taking what a variable's docstring has before a colon for its type."""
    written: dict[str, list[str]] = {}

    def keep(_: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
        if what in {"attribute", "data", "property"}:
            written[name] = [*lines]

    def restore(_: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
        lines[:] = written.pop(name, lines)

    app.connect("autodoc-process-docstring", keep, priority=400)
    app.connect("autodoc-process-docstring", restore, priority=600)


def shorten(app: Sphinx, doctree: nodes.document) -> None:
    """Cut what autodoc says twice, or of what nobody makes, and how FastAPI stores a dependency."""
    for field in list(doctree.findall(nodes.field)):
        described = field.parent
        while not isinstance(described, desc):
            described = described.parent
        said = {each[0].astext() for each in field.parent.findall(nodes.field)}
        is_made = described["objtype"] != "class" or any(described[0].findall(desc_parameter))
        is_more = field[0].astext() == "Parameters" and ("Variables" in said or not is_made)
        # Twice: a name is there in full and in short until it is known whether it leads somewhere.
        is_nothing = field[0].astext() == "Return type" and field[1].astext() in {"None", "NoneNone"}
        if described["objtype"] == "data" or is_more or is_nothing:
            field.parent.remove(field)
    for fields in list(doctree.findall(nodes.field_list)):
        if not fields.children:
            fields.parent.remove(fields)
    for paragraph in doctree.findall(nodes.paragraph):
        if alias := re.match(r"alias of (Annotated\[\w+), ", paragraph.astext()):
            paragraph.children = [nodes.literal(text=f"{alias[1]}, Depends(...)]")]


def setup(app: Sphinx) -> None:
    """Connect what is above."""
    app.connect("source-read", add_navigation)
    app.connect("builder-inited", let_doors_know_what_they_show)
    app.connect("doctree-read", shorten)
    keep_colons(app)
