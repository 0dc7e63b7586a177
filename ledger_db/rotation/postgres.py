"""
How is a password of PostgreSQL changed?

Two strategies.  *Single*: the role changes its own password; between that and finishSecret only AWSPENDING
logs in.  *Alternating*: an administrator gives the other role of a pair a new password; AWSCURRENT logs in at
every moment.

In both the server gets a SCRAM verifier, never a password, and every change is one transaction.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from psycopg2 import sql

from ledger_db.answers.reason import Reason
from ledger_db.answers.secret import ADMINISTRATOR_FIELDS, Secret, SecretProblem
from ledger_db.event_log import EventLog
from ledger_db.rotation import postgres_roles
from ledger_db.rotation.failures import Stopped
from ledger_db.rotation.passwords import new_password
from ledger_db.rotation.postgres_admin import past_proxy
from ledger_db.rotation.postgres_checks import (
    check_name,
    check_same,
    check_same_server,
    check_statement,
    clone_of,
    partner,
)
from ledger_db.rotation.postgres_login import RoleIsFull, probe, session, try_check
from ledger_db.rotation.postgres_pair import align, shortened
from ledger_db.rotation.postgres_passwords import administration, change, revert, set_password
from ledger_db.rotation.postgres_sessions import end_sessions
from ledger_db.rotation.protocol import Deadline, OutOfTime, Probe, ServerProblem, Tools
from ledger_db.rotation.sessions import Ended

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812 - it is a class

log: EventLog = EventLog(__name__)


class _PostgresRotator:
    """What both strategies do alike: all but to choose the next role, and to set its password."""

    session_clock_seconds = 0.0

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def probe(self, secret: Secret, deadline: Deadline) -> Probe:
        """Log in and out."""
        return probe(past_proxy(secret, self._tools), self._tools.tls, deadline)

    def explain(self, secret: Secret, probe: Probe, deadline: Deadline) -> Probe:
        """Ask the administrator, if there is one, whether the role has expired."""
        return _explained(secret, probe, self._tools, deadline)

    def verify(self, pending: Secret, deadline: Deadline) -> None:
        """Log in, and see that it is the role that was meant."""
        _verify(pending, self._tools, deadline)

    def revert(self, wanted: Secret, helpers: tuple[Secret, ...], deadline: Deadline) -> None:
        """Set *wanted* as whoever of *helpers* is the same role and logs in, else as the administrator."""
        revert(wanted, helpers, self._tools, deadline)

    def end_sessions(self, secret: Secret, since: float, deadline: Deadline) -> Ended:
        """End what the role of *secret* has open from before *since*."""
        return end_sessions(secret, self._tools, since, deadline)


class PostgresSingleRotator(_PostgresRotator):
    """
    Gives the one role of the secret a new password.

    The role changes it itself.  Where that is not permitted (``rds.restrict_password_commands``) the
    administrator of ``masterarn`` does, if the secret names one.
    """

    strategy = "postgres-single"
    keeps_current = False

    def next_secret(self, current: Secret) -> Mapping[str, Any]:
        """Change the password and nothing else."""
        check_name(current.username)
        check_statement(current)
        past_proxy(current, self._tools)
        return {"password": new_password(rules=self._tools.passwords)}

    def check(self, current: Secret, pending: Secret) -> None:
        """Insist on the same server and the same role."""
        check_same(current, pending, "username")
        check_same_server(current, pending)

    def apply(self, current: Secret, pending: Secret, deadline: Deadline) -> None:
        """Change the password as the role itself, else as the administrator."""
        change(pending, current, current, self._tools, deadline)

    def drift(self, current: Secret, deadline: Deadline) -> tuple[str, ...]:
        """Try the statement of the secret, and the administrator's login; there is no role to compare."""
        return (*_tried(current, self._tools, deadline), *_unhelped(current, self._tools, deadline))


class PostgresAlternatingRotator(_PostgresRotator):
    """
    Gives the other role of a pair a new password, and makes it equal to the one in use.

    The pair is provisioned beforehand and named in the secret as ``users``; both are members of one NOLOGIN
    role that owns everything, so that either can use what the other made.
    """

    keeps_current = True

    def __init__(self, tools: Tools, *, clone: bool = False) -> None:
        """
        Choose the pair.

        Args:
            tools: To work with.

            clone: Alternate between ``user`` and ``user_clone``, which is made if it is missing, as AWS's own
                function does: for secrets that it has rotated until now.  What the clone makes belongs to
                the clone; a pair with a common owner does not have that problem.
        """
        super().__init__(tools)
        self._clone = clone
        self.strategy = "postgres-alternating-clone" if clone else "postgres-alternating"

    def next_secret(self, current: Secret) -> Mapping[str, Any]:
        """Change to the other role of the pair, with a new password."""
        if current.administrator_field is None:
            raise SecretProblem(
                f"field 'masterarn' of secret {current.name!r} is missing; the alternating strategy needs an "
                "administrator's secret there, or choose 'postgres-single' in the field 'strategy'"
            )
        check_statement(current)
        past_proxy(current, self._tools)
        return {"username": self._other(current), "password": new_password(rules=self._tools.passwords)}

    def check(self, current: Secret, pending: Secret) -> None:
        """Insist on the same server, the same administrator and the other role of the pair."""
        check_same_server(current, pending)
        for name in (*ADMINISTRATOR_FIELDS, "users"):
            check_same(current, pending, name)
        if pending.username != self._other(current):
            raise SecretProblem(f"the 'username' in AWSPENDING is not the one after {current.username!r}")

    def apply(self, current: Secret, pending: Secret, deadline: Deadline) -> None:
        """Mend what differs between the roles and set the password, in one transaction."""
        with self._equal(current, pending, deadline) as cursor:
            set_password(cursor, pending)

    def equalize(self, current: Secret, pending: Secret, deadline: Deadline) -> None:
        """Mend what has come to differ since the password was set."""
        with self._equal(current, pending, deadline):
            pass

    def forget(self, given_up: Secret, current: Secret, deadline: Deadline) -> None:
        """Leave the other role without a password; the next rotation gives it one."""
        with administration(current, self._tools, deadline) as cursor:
            cursor.execute(sql.SQL("ALTER ROLE {} PASSWORD NULL").format(sql.Identifier(given_up.username)))

    @contextmanager
    def _equal(self, current: Secret, pending: Secret, deadline: Deadline) -> "Iterator[Cursor]":
        model, other = current.username, pending.username
        with administration(current, self._tools, deadline) as cursor:
            self._provide(cursor, model, other)
            aligned = align(cursor, model=model, other=other)
            aligned.refuse(model=model, other=other)
            yield cursor
        for event, drift in (("role.drift_mended", aligned.mended), ("role.drift_left", aligned.kept)):
            if drift:
                log.warning(event, role=pending.username, drift=shortened(drift))

    def drift(self, current: Secret, deadline: Deadline) -> tuple[str, ...]:
        """Compare the roles of the pair, by making them equal and undoing that."""
        model, other = current.username, self._other(current)
        with administration(current, self._tools, deadline) as cursor:
            if not self._clone and not postgres_roles.exists(cursor, other):
                return (f"role {other} does not exist",)
            self._provide(cursor, model, other)
            aligned = align(cursor, model=model, other=other)
            cursor.execute("ROLLBACK")
        return (
            *_tried(current, self._tools, deadline),
            *(f"{words}: a rotation is refused" for words in aligned.grave),
            *(f"{words}: a rotation mends that" for words in aligned.mended),
            *(f"{words}: it stays so" for words in aligned.kept),
        )

    def _other(self, current: Secret) -> str:
        other = clone_of(current.username) if self._clone else partner(current)
        check_name(other)
        return other

    def _provide(self, cursor: "Cursor", model: str, other: str) -> None:
        if postgres_roles.exists(cursor, other):
            return
        if not self._clone:
            what = f"role {other} does not exist; the pair is made beforehand"
            raise ServerProblem(Probe(Reason.FAILED_CHECK, what), is_untouched=True)
        names = {"new": sql.Identifier(other), "model": sql.Identifier(model)}
        cursor.execute(sql.SQL("CREATE ROLE {new} LOGIN").format(**names))
        cursor.execute(sql.SQL("GRANT {model} TO {new}").format(**names))


def _verify(pending: Secret, tools: Tools, deadline: Deadline) -> None:
    try:
        with session(past_proxy(pending, tools), tools.tls, deadline, as_application=True) as cursor:
            cursor.execute("SELECT session_user::text")
            found = cursor.fetchone()
            statement = check_statement(pending)
            if statement is not None:
                try_check(cursor, pending, statement)
    except RoleIsFull:
        # By the pool of the application itself: with nobody to go round it there would be no such rotation.
        if pending.administrator_field is None:
            raise
        return
    if found != (pending.username,):
        # A pooler or a user name map in between: what was tested is then not what was set.
        raise ServerProblem(
            Probe(Reason.FAILED_CHECK, f"whoever logs in as {pending.username} is another user on the server")
        )


def _tried(current: Secret, tools: Tools, deadline: Deadline) -> tuple[str, ...]:
    """Say if testSecret would fail of the statement that *current* has for it."""
    if check_statement(current) is None:
        return ()
    try:
        _verify(current, tools, deadline)
    except ServerProblem as problem:
        # A login that fails is told as that.
        return (f"{problem.probe.what}: a rotation is refused",) * (problem.reason is Reason.FAILED_CHECK)
    return ()


def _unhelped(current: Secret, tools: Tools, deadline: Deadline) -> tuple[str, ...]:
    """Say if the administrator that *current* names is no help to a role that may not do it alone."""
    if current.administrator_field is None:
        return ()
    try:
        with administration(current, tools, deadline):
            return ()
    except (ServerProblem, SecretProblem, Stopped) as problem:
        return (f"{problem}: a rotation has no help where the role may not change its own password",)


def _explained(secret: Secret, probe: Probe, tools: Tools, deadline: Deadline) -> Probe:
    if probe.reason is not Reason.REFUSED or secret.administrator_field is None:
        return probe
    try:
        with administration(secret, tools, deadline) as cursor:
            if postgres_roles.has_expired(cursor, secret.username):
                return Probe(
                    Reason.EXPIRED, f"role {secret.username} has expired (VALID UNTIL is in the past)"
                )
    except (ServerProblem, SecretProblem, OutOfTime) as problem:
        # The closer look is a courtesy; what is reported is the refusal.
        log.debug("role.not_examined", error=type(problem).__name__)
    return probe
