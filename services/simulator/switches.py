"""Settings for what nobody knows about Replicate; each can be changed while the stand-in runs."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["SchemaGeneration", "Switchboard", "Switches"]

SchemaGeneration = Literal["current", "spring-2025"]


class Switches(BaseModel):
    """How the stand-in behaves where Replicate's own behavior is not known, or changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    list_lag_s: Annotated[float, Field(ge=0, le=3600)] = 0.0
    """For how long after its create a prediction is missing from lists."""
    webhook_echoed: bool = True
    """Whether reads and lists show `webhook` and its filter."""
    cancel_finished_status: Literal[200, 409] = 200
    """Answer to the cancel of a finished prediction."""
    aborted_webhook: bool = False
    """Whether the end of an aborted prediction is sent."""
    retry_after_header: bool = True
    """Whether a 429 has `Retry-After`, or says it in its body only."""
    webhook_id_per: Literal["event", "prediction"] = "event"
    """Whether each event has a `webhook-id`, or all of a prediction share one."""
    http_webhooks: bool = True
    """Whether `http:` webhook addresses are taken, or refused with 422."""
    failed_charged: bool = False
    """Whether a failed prediction costs its run time."""
    canceled_before_start_charged: bool = False
    """Whether a prediction costs that was canceled before it started."""
    latest_version: bool = True
    """Whether a model's answer has `latest_version`, or null."""
    files_need_authorization: bool = False
    """Whether files are given only to who shows a token."""
    model_alias: bool = False
    """Whether predictions show an internal name as their `model`, or the one that was asked for."""
    schemas: SchemaGeneration = "current"
    """Which generation of input schemas the models have."""
    low_credit: bool = False
    """Whether accounts are held to 6 creates a minute, one at a time."""
    creates_per_minute: Annotated[int, Field(ge=1, le=10_000_000)] = 600
    """Creates that an account may make a minute."""
    calls_per_minute: Annotated[int, Field(ge=1, le=10_000_000)] = 3000
    """Other calls that an account may make a minute."""


class Switchboard:
    """The switches as they stand now."""

    def __init__(self, initial: Switches) -> None:
        self.initial = initial
        self.now = initial

    def change(self, values: dict[str, Any]) -> None:
        """Changes some switches; raises pydantic's ValidationError and then changes none."""
        self.now = Switches.model_validate({**self.now.model_dump(), **values})

    def reset(self) -> None:
        """Puts all switches where they stood at the start."""
        self.now = self.initial
