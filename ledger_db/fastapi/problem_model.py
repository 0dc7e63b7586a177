"""
What does a client read when a request fails?  A problem document, as RFC 9457 has it.

A field is there only if it says something.  None is taken from a driver's text, which names users and
addresses and repeats values of rows.
"""

import json
from typing import Any, Final

from fastapi.encoders import jsonable_encoder
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

MEDIA_TYPE: Final = "application/problem+json"
NO_TYPE: Final = "about:blank"
"""RFC 9457's way to say that the status tells it all."""


class Problem(BaseModel):
    """Why a request failed (RFC 9457)."""

    type: str = Field(default=NO_TYPE, description="The kind of problem, for a program")
    title: str = Field(description="The kind of problem, for a person")
    status: int = Field(description="The status of the answer")
    detail: str | None = Field(default=None, description="What to make of it, and what to do")
    instance: str | None = Field(default=None, description="This one failure; the service's log has it too")
    constraint: str | None = Field(default=None, description="The constraint that the data would break")
    sqlstate: str | None = Field(default=None, description="PostgreSQL's code for it")
    errors: Any = Field(default=None, description="What is wrong with the request, one by one")


class ProblemResponse(JSONResponse):
    """Sends a `Problem`."""

    media_type = MEDIA_TYPE

    def render(self, content: Any) -> bytes:
        """Write *content* in ASCII: half a character that a client has sent cannot be written in UTF-8."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def answer(problem: Problem, headers: dict[str, str] | None = None) -> ProblemResponse:
    """Return the answer that carries *problem*."""
    content = jsonable_encoder(problem, exclude_none=True)
    return ProblemResponse(content, status_code=problem.status, headers=headers)
