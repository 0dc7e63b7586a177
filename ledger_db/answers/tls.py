"""
How is a login to this host protected, and is the server who it says it is?

Decided by the host that a login goes to: no plaintext beyond this machine unless it is asked for by name.
One exception: a service's Redis, which negotiates nothing, is spoken to as LEDGER_DB_REDIS_TLS says, and that
is no by default.  A rotation goes by the host there too, and by the secret where that asks for more.
"""

import ssl
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]

VERIFYING: Final = frozenset({"verify-ca", "verify-full"})
"""Modes in which the server has to prove who it is."""

MODES: Final[tuple[SslMode, ...]] = get_args(SslMode)
"""From no protection at all to the most."""

_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    """
    How connections to servers are secured.

    Attributes:
        mode: As libpq's ``sslmode``; None for ``verify-full`` everywhere but on this machine, where the
            server's own choice is taken.

        ca_file: Whom to trust; None for the system's certificates.
    """

    mode: SslMode | None = None
    ca_file: str | None = None

    def mode_for(self, host: str) -> SslMode:
        """Return libpq's ``sslmode`` for a server at *host*."""
        if self.mode is not None:
            return self.mode
        # Nobody listens in between on the loopback address or a socket's; and nothing in a cloud is there.
        return "prefer" if host in _LOOPBACK or host.startswith("/") else "verify-full"

    def for_libpq(self, host: str) -> dict[str, Any]:
        """Return the arguments of psycopg2 or psycopg for a login at *host*."""
        mode = self.mode_for(host)
        if self.ca_file:
            return {"sslmode": mode, "sslrootcert": self.ca_file}
        if mode in VERIFYING:
            # With nothing libpq would look in a home directory, which a Lambda has not got.  psycopg2 may
            # bring a libpq that does not know "system"; OpenSSL's own file is what Python uses too.
            return {
                "sslmode": mode,
                "sslrootcert": ssl.get_default_verify_paths().cafile or "system",
            }
        return {"sslmode": mode}
