"""
What is wrong with a text: of a whole secret, or of one field of it?

Said without repeating any of it, and without an error of Python's, which would.
"""

import json
import re
from typing import Final

# JSON can name a half of a pair of UTF-16; a driver's error about it would hold the whole connection string.
_HALVES: Final = re.compile("[\ud800-\udfff]")


def why_no_text(found: object, expected: str, *, trimmed: bool) -> str | None:
    """Return what was expected instead of *found*; None if no server will mind it."""
    if not isinstance(found, str) or not found:
        return expected
    if "\x00" in found:
        return "a text without the character NUL, which no server accepts"
    if _HALVES.search(found):
        return "whole characters; a half of one cannot be sent"
    if trimmed and found != found.strip():
        return "a text without white space around it"
    return None


def parsed(text: str | bytes) -> tuple[object, str]:
    """Return what the JSON in *text* says, and why that is no object, if it is none."""
    # Nothing is raised in place of these errors while they are handled: they carry the whole secret as an
    # attribute, and a new one would hold on to them as its context.
    try:
        found: object = json.loads(text.removeprefix("\ufeff") if isinstance(text, str) else text)
    except RecursionError:
        return None, "it is nested too deeply"
    except UnicodeDecodeError:
        return None, "it is no text in UTF-8"
    except json.JSONDecodeError:
        return None, "it is no JSON" if text.strip() else "it is empty"
    except ValueError:
        return None, "it has a number of thousands of digits"
    if isinstance(found, str):
        return None, "it is JSON in quotes" if found.lstrip().startswith("{") else "it is one text"
    return found, "it is one value, or a list"
