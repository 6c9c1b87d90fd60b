"""What a customer has to keep, as far as its judge must be told."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Terms"]

Span = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]


class Terms(BaseModel):
    """The body, or the query, of a request for violations."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    grace_s: Span = 27.0
    """From the beginning of a create of unknown outcome: until then no other create may follow for
    the same generation."""
    reaction_s: Span = 1.0
    """For how long after a 429 a create may still come that was on its way."""
    delay_s_max: Span = 120.0
    """More than this of what a 429 asks for need not be waited for."""
    creates_per_minute: Count = 600
    creates_burst: Count | None = None
    """Creates at once after a quiet time; None means those of a minute."""
    calls_per_minute: Count = 3000
    """Of all other calls, which may come all at once."""
    polling_share_max: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of `calls_per_minute` that reads and lists of predictions may use."""
    polls_after_end_max: Annotated[int, Field(ge=0, le=1000)] = 2
    """How often a prediction may be read in vain, after it had ended."""
    fetch_tries_min: Count = 3
    """After so many fetches, each spoiled by a fault, a video may be given up."""
    proof_parameter: Annotated[str, Field(min_length=1, max_length=100)] = "k"
    """The parameter of a webhook's query that proves it."""
    account: str | None = None
    """Key of the account to judge; None means all."""
    webhook_address: str | None = None
    """What the webhook addresses of this environment begin with; others' are then left alone, and
    a create without a webhook is a violation. None means that there is no other environment."""
    adopted: tuple[str, ...] | None = None
    """The predictions that the customer uses; None means that the judge infers them."""
    is_over: bool = True
    """Whether nothing more will happen, so that what was not done never will be."""
