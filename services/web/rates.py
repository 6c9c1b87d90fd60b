"""Counts how often who does what, in this process or in Redis, and lets them if that is away."""

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from limits import RateLimitItemPerMinute
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from services.runtime.telemetry import get_logger
from services.web.counters import close_counters, open_counters

__all__ = ["Allowance", "Limits", "Rate", "TooManyStreams"]

WINDOW_S = 60
COUNT_S_MAX = 0.25
"""How long counting may hold a request up."""
AWAY_S = 1.0
"""For so long a store that failed is not asked again."""
COMPLAINT_S = 60.0

logger = get_logger(__name__)


class Rate(StrEnum):
    """What is counted."""

    CREATES = "creates"
    """Generations started, by user."""
    UPLOADS = "uploads"
    """Images taken, by user."""
    CALLS = "calls"
    """Everything else, by user."""
    SIGN_INS = "sign-ins"
    """Tries to sign in, by address."""


class TooManyStreams(Exception):
    """All streams that a user may have are open."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a rate says about one more."""

    rate: Rate
    is_granted: bool
    """Whether it may be."""
    limit: int
    """How many there may be in a minute."""
    remaining: int
    """How many there still may be."""
    reset_s: int
    """After so many seconds there may be more."""

    def headers(self) -> dict[str, str]:
        """Returns the fields of the IETF's draft on rate limits, in its version 11."""
        return {
            "RateLimit-Policy": f'"{self.rate}";q={self.limit};w={WINDOW_S}',
            "RateLimit": f'"{self.rate}";r={self.remaining};t={self.reset_s}',
        }


class Limits:
    """What one user, or one address, may do in a minute.

    These hold off haste and mistakes. What protects money belongs to the services that own it.
    """

    def __init__(
        self,
        url: str,
        per_minute: Mapping[Rate, int],
        streams_max: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Counts where `url` says; raises ValueError if it is no such place."""
        self._counters = open_counters(url)
        self._limiter = SlidingWindowCounterRateLimiter(self._counters)
        self._items = {
            rate: RateLimitItemPerMinute(amount, namespace="reelworks")
            for rate, amount in per_minute.items()
        }
        self._streams_max = streams_max
        self._clock = clock
        self._streams: Counter[str] = Counter()
        self._away_until = -math.inf
        self._complained_at = -math.inf

    async def take(self, rate: Rate, key: str) -> Allowance | None:
        """Counts one more of `key`; None if it cannot be counted, and so may be."""
        if self._clock() < self._away_until:
            return None
        item = self._items[rate]
        try:
            async with asyncio.timeout(COUNT_S_MAX):
                is_granted = await self._limiter.hit(item, rate, key)
                window = await self._limiter.get_window_stats(item, rate, key)
        except Exception as error:  # noqa: BLE001  Whatever it is that a store raises.
            self._complain(error)
            return None
        left_s = max(0.0, window.reset_time - time.time())
        remaining = window.remaining if is_granted else 0
        return Allowance(rate, is_granted, item.amount, remaining, math.ceil(left_s) or 1)

    @contextlib.contextmanager
    def stream(self, user_id: str) -> Iterator[None]:
        """Holds one of a user's streams; raises TooManyStreams."""
        if self._streams[user_id] >= self._streams_max:
            raise TooManyStreams
        self._streams[user_id] += 1
        try:
            yield
        finally:
            self._streams[user_id] -= 1
            if not self._streams[user_id]:
                del self._streams[user_id]

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return self._streams.total()

    async def close(self) -> None:
        """Ends the connection to the store."""
        await close_counters(self._counters)

    def _complain(self, error: Exception) -> None:
        now = self._clock()
        self._away_until = now + AWAY_S
        if now - self._complained_at >= COMPLAINT_S:
            self._complained_at = now
            # Its text may have the address, and that a password.
            logger.warning("rates are not counted", cause=type(error).__name__)
