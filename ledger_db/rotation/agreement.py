"""
Does the server accept what AWSCURRENT holds, and who sees to it?

Two that work on one secret at once, a rotation and a repair say, can each find everything as it should be,
and then undo what the other has done.  So whoever has written to the server looks at the labels again;
whoever gives the server a password back takes AWSPENDING away before, where somebody who finishes notices;
and a password whose version has lost that label is taken from the server, by whoever notices.
"""

from ledger_db.answers.reason import Reason
from ledger_db.answers.secret import Secret
from ledger_db.rotation.failures import LabelsMoved, Stopped
from ledger_db.rotation.protocol import Deadline, Forgets, Rotator, ServerProblem
from ledger_db.rotation.versions import Versions

# AWSCURRENT moves once in a rotation, and a rotation takes longer than a look.
_MOST_ROUNDS = 3


def logs_in(rotator: Rotator, secret: Secret, deadline: Deadline) -> bool:
    """
    Whether *secret* logs in.

    Raises:
        ServerProblem: There is no clear answer, so nothing may be written.
    """
    probe = rotator.probe(secret, deadline)
    if probe.ok or probe.reason is Reason.REFUSED:
        return probe.ok
    raise ServerProblem(probe)


def restored(
    versions: Versions, rotator: Rotator, deadline: Deadline, *, helpers: tuple[Secret, ...]
) -> bool:
    """
    See to it that AWSCURRENT logs in, whichever version that is by now.

    Args:
        versions: Of the secret; AWSPENDING is nobody's, or another rotation's.

        rotator: For its kind of server.

        deadline: For all of it.

        helpers: Versions of which one may log in, beside AWSPREVIOUS.

    Returns:
        Whether the server had to be given its password.

    Raises:
        ServerProblem: Nobody could, or there is no clear answer.

        Stopped: AWSCURRENT moved on and on.
    """
    current, written = versions.current(), False
    for _ in range(_MOST_ROUNDS):
        # Before its first rotation it has no password that the server could be given.
        if not current.has("password") or logs_in(rotator, current, deadline):
            return written
        previous = versions.previous()
        rotator.revert(current, helpers if previous is None else (*helpers, previous), deadline)
        rotator.verify(current, deadline)
        seen, current, written = current, versions.current(), True
        if seen.version == current.version:
            return True
        helpers = (seen, *helpers)
    raise Stopped(LabelsMoved, "AWSCURRENT moved again and again")


def forgotten(versions: Versions, rotator: Rotator, deadline: Deadline, *, version: Secret) -> bool:
    """
    See to it that the server refuses *version*, whose AWSPENDING was taken away; AWSCURRENT logs in.

    Returns and raises as `restored`, to which *version* is a helper.
    """
    if not isinstance(rotator, Forgets) or not rotator.probe(version, deadline).ok:
        return False
    current = versions.current()
    if current.version == version.version:
        return False
    rotator.forget(version, current, deadline)
    # Whoever read AWSPENDING before it was taken may have moved AWSCURRENT to it meanwhile.
    return restored(versions, rotator, deadline, helpers=(version,))
