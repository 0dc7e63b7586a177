"""Which release this is, as pip knows it."""

from importlib.metadata import version

__version__ = version("ledger-db")
