"""Which certificates do the servers of a sandbox show, and whom may a client trust?"""

import ssl
from dataclasses import dataclass
from pathlib import Path

from ledger_db.errors import ConfigurationError
from ledger_db.sandbox.processes import write_private


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """
    A throwaway authority and the certificate that it gave to the servers.

    Attributes:
        ca_file: What a client trusts; public.

        certificate_file: What the servers show, for ``localhost`` and ``127.0.0.1``.

        key_file: The servers' private key, mode 0600.
    """

    __module__ = "ledger_db.sandbox"

    ca_file: Path
    certificate_file: Path
    key_file: Path

    def server_context(self) -> ssl.SSLContext:
        """Return what a server needs to speak TLS."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate_file, self.key_file)
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return what a client needs to trust these servers, and no others."""
        return ssl.create_default_context(cafile=self.ca_file)


def certificates(folder: Path) -> TLSFiles:
    """
    Return the certificates in *folder*, which are made if there are none.

    Raises:
        ConfigurationError: The package that makes them is not installed.
    """
    files = TLSFiles(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    if files.key_file.exists():
        return files
    try:
        # Here, as it takes 40 ms that only a sandbox with TLS needs.
        import trustme  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            "certificates cannot be made as trustme is not installed; pip install 'ledger-db[sandbox]'"
        ) from error
    folder.mkdir(mode=0o700, exist_ok=True)
    authority = trustme.CA()
    server = authority.issue_cert("localhost", "127.0.0.1")
    write_private(files.ca_file, authority.cert_pem.bytes().decode())
    write_private(files.certificate_file, "".join(pem.bytes().decode() for pem in server.cert_chain_pems))
    # The key goes last: its presence says that the other two are complete.
    write_private(files.key_file, server.private_key_pem.bytes().decode())
    return files
