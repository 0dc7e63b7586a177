"""
What does a test need of other people's packages that the lowest versions of ours do not have?

The library does without it; an example, a page or a checker of it does not.
"""

import re
from importlib.metadata import version
from typing import Any

import pytest

JSON_LINES = ("fastapi", (0, 134), "FastAPI streams lines of JSON since 0.134, which the Trust Ledger does")
YIELDING_ENDPOINTS = ("fastapi", (0, 134), "FastAPI knows endpoints with yield since 0.134")

# -W of Python and of pytest: an error, but for what a neighbour on its lowest version says of another one.
STRICT = (
    *("-W", "error"),
    # Starlette says which HTTP client it would rather have, and uses a name that anyio has moved.
    *("-W", "ignore:Using `httpx`"),
    *("-W", "ignore:The anyio.abc.BlockingPortal alias"),
    # FastAPI looks for it in each answer; pydantic has told nobody since 2.10.
    *("-W", "ignore:The `__fields__` attribute is deprecated"),
)

Need = tuple[str, tuple[int, ...], str]


def lacks(need: Need) -> bool:
    """Whether what is installed is below what a test needs."""
    name, least, _ = need
    return tuple(int(part) for part in re.findall(r"\d+", version(name))[:2]) < least


def need_parameter(client: Any, operation: str, parameter: str) -> None:
    """Skip the test if the *client*, of boto3, does not know this *parameter*."""
    if parameter not in client.meta.service_model.operation_model(operation).input_shape.members:
        pytest.skip(f"this boto3 does not know {parameter} of {operation}")
