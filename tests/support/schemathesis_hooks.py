"""What schemathesis has to know about the Trust Ledger, beyond what an OpenAPI document can say."""

import itertools
import re
from typing import Any

import schemathesis

_SOUND_KEY = re.compile(r"[!-~]{1,255}")
_numbers = itertools.count()


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Change a request that the document takes for sound, and that the ledger has a reason to refuse."""
    headers = case.headers or {}
    # A key stands for one entry: a second one with it is refused.
    if _SOUND_KEY.fullmatch(str(headers.get("Idempotency-Key", ""))):
        headers["Idempotency-Key"] = f"fuzz-{next(_numbers)}"
    # JSON Schema takes 1.0 for an integer.  The ledger does not: with money, that is a misunderstanding.
    if isinstance(case.body, dict):
        amount = case.body.get("amount")
        if isinstance(amount, float) and amount.is_integer():
            case.body["amount"] = int(amount)
