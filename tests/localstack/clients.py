"""How does a test ask for a client of one of LocalStack's services: ``clients("lambda")``."""

from collections.abc import Callable
from typing import Any

Clients = Callable[[str], Any]
