"""Where may a test keep what another account has to get at?"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.waiting import eventually


@contextlib.contextmanager
def passable_folder() -> Iterator[Path]:
    """
    Make a folder that every account may pass through.

    pytest's own temporary folders are private, and where root may not use namespaces PostgreSQL runs as the
    account nobody.
    """
    path = Path(tempfile.mkdtemp(prefix="ledger-db-test-")).resolve()
    path.chmod(0o711)
    try:
        yield path
    finally:
        eventually(lambda: _removed(path), f"{path} can be removed")


def _removed(path: Path) -> bool:
    # A server that a test has killed may still remove its own last files.
    shutil.rmtree(path, ignore_errors=True)
    return not path.exists()
