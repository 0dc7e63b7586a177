"""Does a service import what it uses, and nothing else?"""

import subprocess
import sys

import pytest

import ledger_db.fastapi


@pytest.mark.parametrize("name", ledger_db.fastapi.__all__)
def test_every_name_of_the_front_door_is_there(name: str) -> None:
    """What is announced can be imported, and the function `lifespan` is not hidden by its module."""
    assert not isinstance(getattr(ledger_db.fastapi, name), type(sys))


def test_a_service_without_async_endpoints_needs_no_greenlet() -> None:
    """Nor does one without Redis pay for redis-py."""
    code = (
        "import sys; sys.modules['greenlet'] = None\n"
        "from ledger_db.fastapi import SessionDep, SessionFactoryDep, lifespan\n"
        "print('redis' in sys.modules, 'sqlalchemy.ext.asyncio' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ended.stdout.split() == ["False", "False"]
