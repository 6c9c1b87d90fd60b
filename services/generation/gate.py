"""Decides how many generations may be submitted now, for the whole fleet.

The provider limits creates to 600 a minute (https://replicate.com/docs/topics/predictions/rate-limits)
and pauses who exceeds it. The gate is one row that all replicas lock, so its counts are exact.
"""

from dataclasses import dataclass, replace
from datetime import datetime

__all__ = ["Gate", "GatePolicy", "admit", "pause"]


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """The limits that hold for all replicas together."""

    rate_per_s: float = 10.0
    """Creates a second in the long run."""
    burst: int = 10
    """Creates at once after a quiet time."""
    in_flight_max: int = 100
    """Predictions under way at once."""


@dataclass(frozen=True, slots=True)
class Gate:
    """What the row says."""

    tokens: float
    """Creates that are allowed as of `refilled_at`."""
    refilled_at: datetime
    paused_until: datetime | None = None
    """Nothing is submitted before."""
    why: str = ""
    """Why it was paused last, for operators."""


def admit(
    gate: Gate, policy: GatePolicy, in_flight: int, wanted: int, now: datetime
) -> tuple[int, Gate]:
    """Returns how many of `wanted` may be submitted, and the gate after they were."""
    if gate.paused_until is not None and now < gate.paused_until:
        return 0, gate
    elapsed_s = max((now - gate.refilled_at).total_seconds(), 0.0)
    tokens = min(gate.tokens + elapsed_s * policy.rate_per_s, float(policy.burst))
    admitted = max(min(wanted, int(tokens), policy.in_flight_max - in_flight), 0)
    # A clock that was set back must not refill for the same time twice.
    refilled_at = max(now, gate.refilled_at)
    return admitted, replace(gate, tokens=tokens - admitted, refilled_at=refilled_at)


def pause(gate: Gate, until: datetime, why: str) -> Gate:
    """Returns the gate closed until `until`, never shorter than it was already.

    It opens empty: the first creates after a pause come one by one, as probes.
    """
    if gate.paused_until is not None and gate.paused_until >= until:
        return replace(gate, why=why)
    return Gate(tokens=0.0, refilled_at=max(until, gate.refilled_at), paused_until=until, why=why)
