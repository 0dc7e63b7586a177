"""Who may read and change the stand-in's secrets, and when is a change done?"""

import secrets as randomness
import string
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ledger_db.stand_in import file as secret_file
from ledger_db.stand_in.model import Secret, ServiceError, Version

_ACCOUNT = "000000000000"
_DAY_SECONDS = 86_400.0


class SecretStore:
    """
    All secrets of the stand-in, in memory and, if a path is given, in a file.

    Args:
        region: Part of every ARN.

        path: The state file; None keeps nothing.

        clock: Tells POSIX seconds.

    Raises:
        ConfigurationError: The state file is damaged or not one of ours.
    """

    def __init__(
        self, region: str = "us-east-1", path: Path | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.region = region
        self._path = path
        self._clock = clock
        # Held across the write to the file, on purpose: nobody may read a version that a kill could still
        # undo, and two writes must not overtake each other.  It guards every assignment to _secrets.
        self._changing = threading.Lock()
        # Read without the lock: one reference to a mapping that is never changed in place.
        self._secrets: Mapping[str, Secret] = {} if path is None else secret_file.load(path)

    def now(self) -> float:
        """POSIX seconds, from the clock of this store."""
        return self._clock()

    def all(self) -> list[Secret]:
        """Every secret whose recovery window has not ended, oldest first."""
        now = self.now()
        return [secret for secret in self._secrets.values() if not _is_gone(secret, now)]

    def find(self, secret_id: str) -> Secret:
        """
        The secret with that name, ARN, or ARN without its random end; it may be scheduled for deletion.

        Raises:
            ServiceError: There is none.
        """
        for secret in self.all():
            if secret_id in {secret.name, secret.arn, secret.arn[:-7]}:
                return secret
        raise ServiceError("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")

    def change(self, secret_id: str, edit: Callable[[Secret], Secret]) -> Secret:
        """
        Replace a secret by what *edit* makes of it; returns once that is on the disk.

        Args:
            secret_id: Name or ARN.

            edit: A pure function; it runs under the lock, so it must not call the store.  Returning the very
                same object means that nothing changed.

        Raises:
            ServiceError: No such secret, the *edit* refused, or the state could not be written.
        """
        with self._changing:
            before = self.find(secret_id)
            after = edit(before)
            if after is not before:
                self._replace({**self._secrets, after.name: after})
            return after

    def create(self, name: str, make: Callable[[Secret | None, str], Secret]) -> Secret:
        """
        Add a secret.

        Args:
            name: Its name.

            make: Gets the secret that already has the name (or None) and an ARN that is free; returns what
                shall be stored, or raises.
        """
        with self._changing:
            existing = next((secret for secret in self.all() if secret.name == name), None)
            made = make(existing, self.new_arn(name))
            if made is not existing:
                self._replace({**self._secrets, name: made})
            return made

    def remove(self, secret_id: str) -> None:
        """Forget a secret at once, with all its versions."""
        with self._changing:
            name = self.find(secret_id).name
            self._replace({key: secret for key, secret in self._secrets.items() if key != name})

    def touch(self, secret: Secret, version: Version) -> None:
        """Note that a value was read today.  AWS keeps the day only, so nearly every call does nothing."""
        today = self.now() // _DAY_SECONDS * _DAY_SECONDS
        if secret.last_accessed_at == version.last_accessed_at == today:
            return

        def noted(latest: Secret) -> Secret:
            read = latest.versions.get(version.id)
            changed = latest if read is None else latest.with_version(replace(read, last_accessed_at=today))
            return replace(changed, last_accessed_at=today)

        # A read does not fail because its date cannot be written, or the secret was deleted meanwhile.
        with suppress(ServiceError):
            self.change(secret.arn, noted)

    def new_arn(self, name: str) -> str:
        """An ARN with six random characters: the namesake of a deleted secret is another secret."""
        suffix = "".join(randomness.choice(string.ascii_letters) for _ in range(6))
        return f"arn:aws:secretsmanager:{self.region}:{_ACCOUNT}:secret:{name}-{suffix}"

    def _replace(self, secrets: Mapping[str, Secret]) -> None:
        now = self.now()
        kept = {name: secret for name, secret in secrets.items() if not _is_gone(secret, now)}
        if self._path is not None:
            try:
                secret_file.save(self._path, kept.values())
            except OSError as error:
                message = f"The stand-in could not write its state file: {error.strerror}."
                raise ServiceError("InternalServiceError", message, status=500) from error
        # Last: a change that could not be written has not happened.
        self._secrets = kept


def _is_gone(secret: Secret, now: float) -> bool:
    return secret.deletion_at is not None and secret.deletion_at <= now
