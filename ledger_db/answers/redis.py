"""What Redis and Valkey say to a login; the first text that is found counts."""

from typing import Final

from ledger_db.answers.reason import Finding, Reason, Text, text

ANYBODY: Final = Finding(Reason.REFUSED, "the server has no password")
HUNG_UP: Final = Finding(Reason.NOT_READY, "it hung up; does it insist on TLS?")

TEXTS: Final[tuple[Text, ...]] = (
    text(
        r"WRONGPASS|invalid username-password pair|invalid password|user is disabled",
        Finding(Reason.REFUSED, "the server refused the password, or knows no such user"),
    ),
    text(r"AUTH .*called without any password configured|sent AUTH, but no password is set", ANYBODY),
    text(
        r"NOAUTH|HELLO must be called with the client already authenticated|Authentication required",
        Finding(Reason.REFUSED, "the server asks for a login"),
    ),
    text(r"NOPERM|no permissions to", Finding(Reason.FORBIDDEN, "the user lacks a permission")),
    text(r"Redis is running in protected mode", Finding(Reason.FORBIDDEN, "the server is in protected mode")),
    text(r"READONLY|read only replica", Finding(Reason.FORBIDDEN, "this node is a read-only replica")),
    text(
        r"invalid DB index|DB index is out",
        Finding(Reason.NO_DATABASE, "there is no database of that number"),
    ),
    text(r"max number of clients reached", Finding(Reason.TOO_MANY_CONNECTIONS, "no connection is free")),
    text(
        r"LOADING|loading the dataset|BUSY |MASTERDOWN|CLUSTERDOWN|TRYAGAIN",
        Finding(Reason.NOT_READY, "the server is starting, stopping or busy"),
    ),
    text(r"Connection closed by server|Connection reset by peer", HUNG_UP),
)
