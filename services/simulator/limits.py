"""Counts calls against Replicate's limits a minute; pure but for its own counts."""

import math
from dataclasses import dataclass

from services.simulator.switches import Switches

__all__ = ["Limit", "Limits", "Permit"]

LOW_CREDIT_PER_MINUTE = 6


@dataclass(frozen=True, slots=True)
class Limit:
    """So many calls a minute, of which `burst` may come at once."""

    per_minute: int
    burst: int


@dataclass(frozen=True, slots=True)
class Permit:
    """Whether a call may be made, and what there is left."""

    granted: bool
    remaining: int
    """Calls that could be made at once after this one."""
    reset_s: int
    """Whole seconds until a whole burst is there again."""
    retry_after_s: int
    """Whole seconds until the next call may be made; 0 if there is one left."""


@dataclass(slots=True)
class _Bucket:
    """What is left of a burst; it fills up again evenly."""

    limit: Limit
    left: float
    at: float


class Limits:
    """What each account has left, of creates and of all other calls."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, bool], _Bucket] = {}

    def take(self, account: str, is_create: bool, switches: Switches, now: float) -> Permit:
        """Returns whether an account may make one more call at `now`, and counts it if so."""
        limit = _limit(is_create, switches)
        bucket = self._buckets.get((account, is_create))
        if bucket is None or bucket.limit != limit:
            bucket = _Bucket(limit, limit.burst, now)
            self._buckets[account, is_create] = bucket
        per_s = limit.per_minute / 60
        bucket.left = min(limit.burst, bucket.left + max(0.0, now - bucket.at) * per_s)
        bucket.at = now
        granted = bucket.left >= 1
        if granted:
            bucket.left -= 1
        return Permit(
            granted=granted,
            remaining=int(bucket.left),
            reset_s=math.ceil((limit.burst - bucket.left) / per_s),
            retry_after_s=math.ceil(max(0.0, 1 - bucket.left) / per_s),
        )

    def clear(self) -> None:
        """Forgets all counts."""
        self._buckets.clear()


def _limit(is_create: bool, switches: Switches) -> Limit:
    if is_create and switches.low_credit:
        return Limit(LOW_CREDIT_PER_MINUTE, burst=1)
    per_minute = switches.creates_per_minute if is_create else switches.calls_per_minute
    return Limit(per_minute, burst=per_minute)
