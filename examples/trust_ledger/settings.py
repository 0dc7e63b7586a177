"""What can be configured about the service itself; how it reaches its servers is LEDGER_DB_*."""

from typing import Annotated, Literal

from fastapi import Depends, Request
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class LedgerSettings(BaseSettings):
    """All settings of the service, read from ``TRUST_LEDGER_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="TRUST_LEDGER_", env_ignore_empty=True, frozen=True)

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="What is logged from this level on, as JSON, one object a line"
    )
    most_body_bytes: int = Field(
        default=1024 * 1024, ge=1024, description="A larger request is refused before it is read to its end"
    )
    remember_seconds: int = Field(
        default=24 * 60 * 60, ge=1, description="How long Redis remembers what an idempotency key stands for"
    )
    verify_page_entries: int = Field(
        default=500, ge=1, le=10_000, description="How many entries a walk along the chain reads at a time"
    )


async def settings_of(request: Request) -> LedgerSettings:
    """Hand the settings of the running service to an endpoint."""
    settings: LedgerSettings = request.app.state.settings
    return settings


SettingsDep = Annotated[LedgerSettings, Depends(settings_of)]
