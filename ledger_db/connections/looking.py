"""
What came of looking for other credentials, after a login was refused?

A person who reads that AWSPENDING was tried does not look at who may read it: only what was done is told.
"""

from dataclasses import dataclass, field

from ledger_db.credentials.model import Credentials, Stage
from ledger_db.redaction import describe


@dataclass(slots=True)
class Looked:
    """
    What one login has found out.

    Attributes:
        tried: The labels that had something to try.

        remarks: What was wrong with the others, the last time that there was an answer.
    """

    tried: set[Stage] = field(default_factory=set)
    remarks: dict[Stage, str] = field(default_factory=dict)

    def note(self, stage: Stage, found: Credentials | BaseException | None) -> None:
        """Say what *stage* had: other credentials, none, or why it could not be read."""
        if isinstance(found, BaseException):
            remark = f"could not be read ({describe(found)})"
            # At the end nobody waits for an answer any more: what was said before it counts.
            is_new = not isinstance(found, TimeoutError) or stage not in self.tried | self.remarks.keys()
            self.remarks |= {stage: remark} if is_new else {}
        elif found is not None or stage == "AWSCURRENT":
            # AWSCURRENT always has something: no other means that it is what was refused.
            self.tried.add(stage)
            self.remarks.pop(stage, None)
        elif stage not in self.tried:
            self.remarks[stage] = "has no other"

    def told(self, seconds: float) -> str:
        """Return a part of a sentence: what was tried for *seconds*, and what was not."""
        names = " and ".join(sorted(self.tried)) or "what was known"
        parts = [f"{names} {'were' if len(self.tried) > 1 else 'was'} tried for {seconds:.1f} s"]
        return "; ".join(parts + [f"{stage} {remark}" for stage, remark in sorted(self.remarks.items())])
