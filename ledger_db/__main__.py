"""``python -m ledger_db`` is the command ``ledger-db``, where that is not on the path."""

import sys

from ledger_db.operate.cli import main

if __name__ == "__main__":
    sys.exit(main())
