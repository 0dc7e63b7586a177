"""
What does it mean that PostgreSQL refuses a statement of a rotation?

SQLSTATEs count, as sentences are in the server's language.  A person gets the sentence beside it, where it
can hold no verifier.
"""

from typing import Final

import psycopg2

from ledger_db.answers.postgres import by_sqlstate
from ledger_db.answers.reason import Reason
from ledger_db.answers.secret import Secret
from ledger_db.rotation import scram
from ledger_db.rotation.protocol import Probe, ServerProblem

_FORBIDDEN: Final = "42501"
_ENDS_OF_CONNECTIONS: Final = ("08", "57P")
_MOST_CHARACTERS: Final = 400


def judged(error: psycopg2.Error, *, where: str) -> Probe:
    """Return what *error* means, of a statement *where* that was."""
    code = error.pgcode or ""
    if "concurrently updated" in str(error):
        # Two calls of one step at the same time: the other one's change is as good as this one's.
        return Probe(Reason.NOT_READY, f"{where}: somebody else changed the role at the same moment")
    if not code or code.startswith("08"):
        return Probe(Reason.NOT_READY, f"{where}: the connection broke")
    finding = by_sqlstate(code)
    # A refusal is about a login, and only after that may anything be written: a pooler may say so later.
    if finding is not None and finding.reason is not Reason.REFUSED:
        said = f" ({sentence})" if code == _FORBIDDEN and (sentence := _said_by(error)) else ""
        return Probe(finding.reason, f"{where}: {finding.words}{said}")
    # No text: that of a syntax error has the statement in it.
    return Probe(Reason.UNKNOWN, f"{where}: the server answered with SQLSTATE {code}")


def not_taken(error: psycopg2.Error, secret: Secret) -> ServerProblem | None:
    """
    Return what it means that a server would not set the password of *secret*, if it is the verifier's fault.

    None where the table of SQLSTATEs knows better.  Hooks have whatever code their authors liked.
    """
    reason = judged(error, where="").reason
    if reason not in {Reason.UNKNOWN, Reason.UNSUPPORTED}:
        return None
    said = ": ".join(part for part in (f"SQLSTATE {error.pgcode}", _said_by(error)) if part)
    what = f"the server does not take the new password of role {secret.username} ({said})"
    return ServerProblem(
        Probe(reason, what, cause=error),
        next_move="it comes as a SCRAM verifier; where a password hook wants to see passwords themselves, "
        "let it take encrypted ones (credcheck.encrypted_password_allowed), or do without it",
        is_untouched=True,
    )


def _said_by(error: psycopg2.Error) -> str:
    """Return the server's own sentence, if there is one that is none of a verifier."""
    parts = (error.diag.message_primary, error.diag.message_detail)
    text = " ".join("; ".join(part for part in parts if part).split())[:_MOST_CHARACTERS]
    return "" if scram.MARK in text else text


def is_rolled_back(error: psycopg2.Error) -> bool:
    """Whether *error* is proof that the transaction has changed nothing."""
    # A statement's error ends its transaction.  A connection that breaks may have done so after COMMIT.
    code = error.pgcode or ""
    return bool(code) and not code.startswith(_ENDS_OF_CONNECTIONS)
