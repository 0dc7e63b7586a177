"""Does a service import what it uses, and nothing else?"""

import subprocess
import sys


def test_a_service_without_async_endpoints_needs_no_greenlet() -> None:
    """Nor does one without Redis pay for redis-py."""
    code = (
        "import sys; sys.modules['greenlet'] = None\n"
        "from ledger_db.fastapi import SessionDep, SessionFactoryDep, lifespan\n"
        "print('redis' in sys.modules, 'sqlalchemy.ext.asyncio' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ended.stdout.split() == ["False", "False"]
