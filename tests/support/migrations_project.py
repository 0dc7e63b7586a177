"""What do tests of migrations share: a small Alembic project with models."""

import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

from alembic.config import Config
from sqlalchemy import CheckConstraint, ForeignKey, MetaData, Numeric, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from ledger_db.orm.base import NAMING_CONVENTION, Base

ROOT = Path(__file__).resolve().parents[2]


class ShopBase(Base):
    """Models of a shop, and nothing of other tests."""

    __abstract__ = True
    metadata = MetaData(naming_convention=NAMING_CONVENTION)


class Customer(ShopBase):
    """Somebody who buys."""

    __tablename__ = "customer"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(200), unique=True)
    since: Mapped[datetime] = mapped_column(index=True)


class Purchase(ShopBase):
    """What somebody bought; the names of its constraints are longer than PostgreSQL takes."""

    __tablename__ = "purchase_in_a_table_whose_name_is_rather_long"
    __table_args__ = (
        UniqueConstraint("customer_id", "reference"),
        CheckConstraint("amount > 0", name="amount_is_more_than_nothing_at_all"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id", ondelete="CASCADE"), index=True)
    reference: Mapped[str]
    amount: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    note: Mapped[str | None]


ENV = """
    from ledger_db.migrations import run_migrations
    from tests.support.migrations_project import ShopBase

    run_migrations(ShopBase.metadata{options})
"""

# As Alembic's own template has it.
INI = """
    [alembic]
    script_location = %(here)s
    path_separator = os

    [loggers]
    keys = root,alembic
    [handlers]
    keys = console
    [formatters]
    keys = generic
    [logger_root]
    level = WARNING
    handlers = console
    [logger_alembic]
    level = INFO
    handlers =
    qualname = alembic
    [handler_console]
    class = StreamHandler
    args = (sys.stderr,)
    level = NOTSET
    formatter = generic
    [formatter_generic]
    format = %(levelname)-5.5s [%(name)s] %(message)s
"""

TEMPLATE = '''\
"""${message}"""
import sqlalchemy as sa
from alembic import op

revision, down_revision = ${repr(up_revision)}, ${repr(down_revision)}


def upgrade():
    ${upgrades if upgrades else "pass"}


def downgrade():
    ${downgrades if downgrades else "pass"}
'''


@dataclass(frozen=True, slots=True)
class Project:
    """
    A folder with ``alembic.ini``, ``env.py`` and ``versions``.

    Attributes:
        folder: Where.
    """

    folder: Path

    @classmethod
    def create(cls, folder: Path, **options: Any) -> "Project":
        """Write everything but migrations; *options* are for ``run_migrations``."""
        (folder / "versions").mkdir()
        (folder / "alembic.ini").write_text(textwrap.dedent(INI))
        (folder / "script.py.mako").write_text(TEMPLATE)
        given = "".join(f", {name}={value!r}" for name, value in options.items())
        (folder / "env.py").write_text(textwrap.dedent(ENV).format(options=given))
        return cls(folder)

    def add(self, revision: str, upgrade: str, downgrade: str = "pass", *, after: str | None = None) -> None:
        """Write a migration by hand."""
        header = (
            '"""Written by hand."""\n'
            "import sqlalchemy as sa\n"
            "from alembic import op\n"
            f"revision, down_revision = {revision!r}, {after!r}\n"
        )
        body = {"upgrade": upgrade, "downgrade": downgrade}
        functions = "".join(
            f"\ndef {name}():\n{textwrap.indent(textwrap.dedent(lines).strip(), '    ')}\n"
            for name, lines in body.items()
        )
        (self.folder / "versions" / f"{revision}.py").write_text(header + functions)

    def config(self, **attributes: Any) -> Config:
        """Return what a program that migrates by itself passes to Alembic."""
        config = Config(self.folder / "alembic.ini", output_buffer=StringIO(), stdout=StringIO())
        config.attributes.update(attributes)
        return config

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        """Start the command ``alembic``."""
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "alembic", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Run the command ``alembic``; return its status and all that it printed."""
        with self.start(*arguments, **environment) as process:
            output, _ = process.communicate(timeout=60)
        return process.returncode, output
