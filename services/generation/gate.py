"""Decides how many generations may be submitted now, for the whole fleet.

The provider limits creates to 600 a minute (https://replicate.com/docs/topics/predictions/rate-limits)
and pauses who exceeds it. The gate is one row that all replicas lock, so its counts are exact.

After an error that concerns every create, as when the account has no credit or the provider cannot
be reached, the gate probes: it lets one generation through at a time, until one has an answer.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

__all__ = ["Gate", "GatePolicy", "admit", "answered", "pause", "unanswered"]

TROUBLES_MAX = 5
"""So many creates in a row without an answer mean that the provider cannot be reached."""
TROUBLE_PAUSE_S_MIN = 0.5


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """The limits that hold for all replicas together."""

    rate_per_s: float = 10.0
    """Creates a second in the long run."""
    burst: int = 10
    """Creates at once after a quiet time."""
    in_flight_max: int = 100
    """Predictions under way at once."""
    probe_s: float = 60.0
    """How long to wait for the answer of one probe before the next."""


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
    troubles: int = 0
    """How many creates in a row had no answer."""
    is_probing: bool = False
    """Whether only one may go at a time, until one is answered."""


def admit(
    gate: Gate, policy: GatePolicy, in_flight: int, wanted: int, now: datetime
) -> tuple[int, Gate]:
    """Returns how many of `wanted` may be submitted, and the gate after they were."""
    if gate.paused_until is not None and now < gate.paused_until:
        return 0, gate
    elapsed_s = max((now - gate.refilled_at).total_seconds(), 0.0)
    tokens = min(gate.tokens + elapsed_s * policy.rate_per_s, float(policy.burst))
    admitted = max(min(wanted, int(tokens), policy.in_flight_max - in_flight), 0)
    paused_until = gate.paused_until
    if gate.is_probing and admitted > 0:
        admitted, paused_until = 1, now + timedelta(seconds=policy.probe_s)
    # A clock that was set back must not refill for the same time twice.
    refilled_at = max(now, gate.refilled_at)
    return admitted, replace(
        gate, tokens=tokens - admitted, refilled_at=refilled_at, paused_until=paused_until
    )


def pause(gate: Gate, until: datetime, why: str, *, probe: bool = False) -> Gate:
    """Returns the gate closed until `until`, never shorter than it was already.

    Only while it probes it was closed for the probe itself, whose answer this is.

    It opens empty: the first creates after a pause come one by one. With `probe`, the next comes
    only when one was answered.
    """
    is_probing = gate.is_probing or probe
    if not gate.is_probing and gate.paused_until is not None and gate.paused_until >= until:
        return replace(gate, why=why, is_probing=is_probing)
    return replace(
        gate,
        tokens=0.0,
        refilled_at=max(until, gate.refilled_at),
        paused_until=until,
        why=why,
        is_probing=is_probing,
    )


def unanswered(gate: Gate, now: datetime, pause_s: float, why: str) -> Gate:
    """Returns the gate after a create that had no answer, as when the network is away.

    It closes for a moment that doubles; from the fifth in a row on for `pause_s`, and probes.
    """
    troubles = gate.troubles + 1
    if troubles < TROUBLES_MAX:
        pause_s = min(TROUBLE_PAUSE_S_MIN * 2.0 ** (troubles - 1), pause_s)
    until = now + timedelta(seconds=pause_s)
    paused = pause(gate, until, why, probe=troubles >= TROUBLES_MAX)
    return replace(paused, troubles=troubles)


def answered(gate: Gate, now: datetime) -> Gate:
    """Returns the gate after a create that was taken or refused for its own sake."""
    if not gate.is_probing:
        return replace(gate, troubles=0)
    return replace(
        gate, troubles=0, is_probing=False, paused_until=min(now, gate.paused_until or now)
    )
