"""Which problems does the OpenAPI document announce?"""

from typing import Any

from fastapi import FastAPI

from ledger_db.fastapi import problem_responses

Responses = dict[int | str, dict[str, Any]]

_MEDIA_TYPE = "application/problem+json"


def announce(status: int, what: str) -> Responses:
    """Describe a problem that an endpoint may answer."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {status: {"description": what, "content": {_MEDIA_TYPE: {"schema": schema}}}}


def describe_problems(app: FastAPI) -> None:
    """Let the document of *app* say once what a problem is, where `announce` refers to it."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schema = problem_responses[500]["content"][_MEDIA_TYPE]["schema"]
        document["components"]["schemas"]["Problem"] = schema
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to change the document


def _of_the_library(*statuses: int) -> Responses:
    announced = [announce(status, problem_responses[status]["description"]) for status in statuses]
    return {status: response for one in announced for status, response in one.items()}


ALWAYS = _of_the_library(500, 503, 504)
ALWAYS[503]["headers"] = {
    "Retry-After": {
        "description": "After how many seconds the same request may succeed",
        "schema": {"type": "integer"},
    }
}
"""What every endpoint may answer."""

WITH_INPUT = _of_the_library(422)
"""What an endpoint with parameters may answer beyond that."""

WITH_A_BODY = {
    **WITH_INPUT,
    **announce(400, "The body is not JSON in UTF-8"),
    **announce(413, "The body is too large"),
}
"""What an endpoint that reads a body may answer beyond that."""

OF_AN_ENTRY = {**WITH_INPUT, **announce(404, "There is no such entry")}
"""What an endpoint about one entry may answer."""
