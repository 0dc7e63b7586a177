"""
Which field of a secret was meant, where the one that is read is not there?

AWS writes its names in small letters and in one way.  People, and what they deploy with, write them in
others; a server that is looked for without such a field is another one, or another database on it.
"""

from collections.abc import Mapping
from typing import Any, Final

# Without capitals and what separates words.
_OTHERS: Final[Mapping[str, frozenset[str]]] = {
    "username": frozenset({"user", "dbuser", "dbusername", "login", "role", "masterusername"}),
    "password": frozenset(
        {"pass", "passwd", "pwd", "dbpassword", "authtoken", "token", "masteruserpassword"}
    ),
    "host": frozenset({"hostname", "dbhost", "endpoint", "address", "server", "url", "uri"}),
    "port": frozenset({"dbport", "endpointport"}),
    "dbname": frozenset({"db", "databasename"}),
}


def look_alike(name: str, fields: Mapping[str, Any]) -> str | None:
    """
    Return the field in *fields* that was meant to be *name*; None if there is none.

    Nothing else of a secret is ever repeated: what is returned is a known word, in whatever capitals.
    """
    known = _OTHERS.get(name, frozenset()) | {name}
    return next((key for key, value in fields.items() if value is not None and _plain(key) in known), None)


def _plain(key: str) -> str:
    return key.lower().replace("_", "").replace("-", "").replace(" ", "")
