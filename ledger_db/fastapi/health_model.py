"""
What do the health endpoints say?

Counters, ages, versions and kinds of problems: no name of a user, no address, no text of an error.
"""

import time

from pydantic import BaseModel, Field

from ledger_db.connections.probe import ProbeReport, ServerProbe
from ledger_db.credentials.provider import ProviderStatus
from ledger_db.fastapi.lifetime import Opened
from ledger_db.manager.health import PoolHealth, ServerHealth


class Liveness(BaseModel):
    """The event loop turns."""

    ok: bool = True


class Answer(BaseModel):
    """What a server answered to a probe."""

    ok: bool
    latency_seconds: float | None = Field(description="None if there was no answer")
    problem: str | None = Field(description="The kind of problem; the service's log has the rest")
    age_seconds: float = Field(description="How long ago it was asked")


class ManagerReadiness(BaseModel):
    """Whether one manager can do its work."""

    ok: bool
    state: str = Field(description="Anything but `open` is not ready")
    servers: dict[str, Answer]


class Readiness(BaseModel):
    """Whether requests should come here."""

    ok: bool
    managers: dict[str, ManagerReadiness]


class CredentialState(BaseModel):
    """What is known of the credentials in use; the secret is not read for this."""

    version: str | None = Field(description="Of the secret")
    generation: int = Field(description="One more with each rotation that was followed")
    adopted_seconds_ago: float | None
    confirmed_seconds_ago: float | None = Field(description="When the secret was last read")
    failures: int = Field(description="Reads that have failed since then")
    problem: str | None = Field(description="The kind of problem; the service's log has the rest")


class PoolState(BaseModel):
    """The counters of one engine's pool."""

    driver: str
    capacity: int
    checked_out: int
    idle: int
    saturated: bool


class AdmissionState(BaseModel):
    """Requests that use an engine, and those that wait until they may."""

    places: int
    in_use: int
    waiting: int
    refused: int


class TransactionState(BaseModel):
    """What became of transactions that can be repeated."""

    committed: int
    retried: int
    exhausted: int


class ServerState(BaseModel):
    """One server, as the service knows it."""

    ok: bool
    takes_writes: bool = Field(description="False if the last login has found a standby")
    credentials: CredentialState
    pools: list[PoolState]
    probe: Answer | None = Field(default=None, description="Only where the server was asked")


class ManagerState(BaseModel):
    """One manager, as it knows itself."""

    ok: bool
    state: str
    servers: dict[str, ServerState]
    admission: dict[str, AdmissionState] = Field(description="Of the synchronous and the asynchronous engine")
    transactions: TransactionState


class DatabaseHealth(BaseModel):
    """All managers."""

    ok: bool
    managers: dict[str, ManagerState]


def answer_of(probe: ServerProbe) -> Answer:
    """Return *probe* as it is shown."""
    return Answer(
        ok=probe.ok,
        latency_seconds=None if probe.latency_seconds is None else round(probe.latency_seconds, 6),
        problem=probe.problem,
        age_seconds=_ago(probe.asked_at),
    )


def state_of(opened: Opened, report: ProbeReport) -> ManagerState:
    """Return a manager as it is shown, with those answers of its servers that *report* has."""
    health = opened.manager.health()
    probes = {probe.name: answer_of(probe) for probe in report.servers}
    servers = {server.name: _server(server, probes.get(server.name)) for server in health.servers}
    admissions = {"sync": opened.admission.status, "async": opened.async_admission.status}
    return ManagerState(
        ok=health.ok and all(server.ok for server in servers.values()),
        state=health.state,
        servers=servers,
        admission={
            name: AdmissionState.model_validate(status, from_attributes=True)
            for name, status in admissions.items()
        },
        transactions=TransactionState.model_validate(health.transactions, from_attributes=True),
    )


def _server(health: ServerHealth, probe: Answer | None) -> ServerState:
    return ServerState(
        ok=health.ok and (probe is None or probe.ok),
        takes_writes=health.takes_writes,
        credentials=_credentials(health.credentials),
        pools=[_pool(pool) for pool in health.pools],
        probe=probe,
    )


def _pool(pool: PoolHealth) -> PoolState:
    return PoolState.model_validate(pool, from_attributes=True)


def _credentials(status: ProviderStatus) -> CredentialState:
    return CredentialState(
        version=status.version,
        generation=status.generation,
        adopted_seconds_ago=None if status.adopted_at is None else _ago(status.adopted_at),
        confirmed_seconds_ago=None if status.confirmed_at is None else _ago(status.confirmed_at),
        failures=status.failures,
        problem=_problem(status),
    )


def _problem(status: ProviderStatus) -> str | None:
    # Not what the status says: that may have the address of a server or the name of an account in it.
    if status.permanent:
        return "the secret cannot be read until somebody mends it"
    if status.failures:
        return "the secret could not be read lately"
    return None if status.problem is None else "a newer version of the secret is not in use"


def _ago(posix_seconds: float) -> float:
    # A clock that was set back must not look like an answer from the future.
    return round(max(0.0, time.time() - posix_seconds), 3)
