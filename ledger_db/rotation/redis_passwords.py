"""How are passwords of a Redis user exchanged, without a moment in which none works?"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ledger_db.event_log import EventLog
from ledger_db.rotation.redis_login import Node

if TYPE_CHECKING:
    import redis

log: EventLog = EventLog(__name__)


def write(
    client: "redis.Redis", node: Node, user: str, *, known: Sequence[str], older: Sequence[str]
) -> None:
    """
    Let the *user* have the passwords *known*, and those of *older* no more; what else it has stays.

    Args:
        client: Logged in as who may.

        node: For messages.

        user: That is there.

        known: Hashes, as an ACL rule adds them.

        older: The same, to be taken away.

    Raises:
        ResponseError: The server would not.
    """
    # One transaction: a password that works, and that a restart of the server would make it forget, must not
    # become AWSCURRENT.
    with client.pipeline(transaction=True) as transaction:
        transaction.execute_command("ACL", "SETUSER", user, *known)  # type: ignore[no-untyped-call]
        for password in older:
            # One by one, not "resetpass": a password that somebody else has just added stays, and one that
            # another call of this step has just removed is no failure of ours.
            transaction.execute_command("ACL", "SETUSER", user, f"!{password[1:]}")  # type: ignore[no-untyped-call]
        transaction.execute_command("ACL", "SAVE")  # type: ignore[no-untyped-call]
        is_set, *_, is_saved = transaction.execute(raise_on_error=False)
    if isinstance(is_set, Exception):
        raise is_set
    log.info("rotation.passwords_set", role=user, action=f"{len(known)} known at {node}")
    if isinstance(is_saved, Exception):
        _judge_saving(is_saved, node)


def save(client: "redis.Redis", node: Node) -> None:
    """
    Have what was written outlast a restart of the server; raises as `write`.

    Where its users are in no file of its own, their owner has other means.
    """
    import redis  # noqa: PLC0415 - a rotation of PostgreSQL does without it

    try:
        client.acl_save()
    except redis.ResponseError as error:
        _judge_saving(error, node)


def _judge_saving(error: Exception, node: Node) -> None:
    # Users in redis.conf, or in memory only.
    if "ACL file" not in str(error):
        raise error
    log.info("rotation.not_saved", action=f"{node} has no aclfile")
