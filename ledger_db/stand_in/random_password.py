"""What does GetRandomPassword answer?"""

import secrets
import string

from ledger_db.stand_in.model import ServiceError
from ledger_db.stand_in.requests import Request, Response

_TYPES = (
    ("ExcludeLowercase", string.ascii_lowercase),
    ("ExcludeUppercase", string.ascii_uppercase),
    ("ExcludeNumbers", string.digits),
    ("ExcludePunctuation", string.punctuation),
)
_DEFAULT_LENGTH = 32


def get_random_password(request: Request) -> Response:
    """
    Make a password from what the request does not exclude.

    Raises:
        ServiceError: Nothing is left to choose from, or not every type fits in.
    """
    pools = _pools(request)
    spaces = " " if request.get("IncludeSpace") and " " not in request.get("ExcludeCharacters", "") else ""
    alphabet = "".join(pools) + spaces
    if not alphabet:
        raise _invalid("All characters have been excluded from selection.")
    length = request.get("PasswordLength", _DEFAULT_LENGTH)
    chosen: list[str] = []
    if request.get("RequireEachIncludedType", True):
        if not all(pools):
            raise _invalid("All characters of the desired type have been excluded.")
        if length < len(pools):
            raise _invalid("Password length is too short based on the required types.")
        chosen = [secrets.choice(pool) for pool in pools]
    chosen += [secrets.choice(alphabet) for _ in range(length - len(chosen))]
    # The required ones come first so far; their places must not be known.
    secrets.SystemRandom().shuffle(chosen)
    return {"RandomPassword": "".join(chosen)}


def _pools(request: Request) -> list[str]:
    excluded = set(request.get("ExcludeCharacters", ""))
    included = [characters for switch, characters in _TYPES if not request.get(switch)]
    return ["".join(one for one in characters if one not in excluded) for characters in included]


def _invalid(message: str) -> ServiceError:
    return ServiceError("InvalidParameterException", message)
