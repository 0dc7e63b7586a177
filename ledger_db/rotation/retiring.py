"""What became of the password before AWSCURRENT, and what ends it?"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ledger_db.answers.secret import Secret
from ledger_db.rotation.agreement import logs_in
from ledger_db.rotation.case import Case
from ledger_db.rotation.protocol import Deadline


@runtime_checkable
class Retires(Protocol):
    """A rotator whose servers know two passwords for a while."""

    def retire(self, current: Secret, deadline: Deadline) -> None:
        """Let them forget all but that of *current*."""
        ...


@dataclass(frozen=True, slots=True)
class Retired:
    """
    What is true of the old password now.

    Attributes:
        is_dead: Whether it does not log in any more.

        words: The same in a sentence, with what to do.
    """

    is_dead: bool
    words: str

    def __str__(self) -> str:
        return self.words


def retire(case: Case, deadline: Deadline) -> Retired:
    """
    End the overlap in which the password before AWSCURRENT logs in too, or say what does.

    Raises:
        ServerProblem: AWSCURRENT does not log in, so nothing was changed; or there is no clear answer.
    """
    if isinstance(case.rotator, Retires):
        case.rotator.retire(case.current, deadline)
        return Retired(is_dead=True, words="only AWSCURRENT logs in")
    previous = case.versions.previous()
    if previous is None:
        return Retired(is_dead=True, words="there is no AWSPREVIOUS")
    if not logs_in(case.rotator, previous, deadline):
        return Retired(is_dead=True, words="the server refuses the password in AWSPREVIOUS already")
    return Retired(is_dead=False, words=_advice(case, previous))


def _advice(case: Case, previous: Secret) -> str:
    name, user = case.labels.name, previous.username
    alive = f"AWSPREVIOUS logs in, as {user}"
    if user != case.current.username:
        if not case.rotator.keeps_current:
            return f"{alive}, whom this strategy never touches; give that role another password by hand"
        return (
            f"{alive}, until the next rotation gives that role a new password; to end it now: "
            f"'ledger-db rotate {name}', or 'ledger-db rotate {name} --compromised' after a leak"
        )
    if previous.password == case.current.password:
        return f"{alive}: it holds the password that AWSCURRENT holds; 'ledger-db rotate {name}' ends both"
    return f"{alive}, so the server does not have AWSCURRENT's; 'ledger-db rotate {name} --repair'"
