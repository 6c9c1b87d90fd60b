"""The provider's clock, which can be told to be wrong."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate

from aiohttp import web

__all__ = ["Clock", "date_header"]

PAUSE_S_MAX = 3600.0
"""Longest single sleep: what never comes is at infinity, which no timer takes."""


class Clock:
    """Seconds since the epoch, as the stand-in counts them."""

    def __init__(self) -> None:
        self.jumped_s = 0.0
        """By how much the stand-in lives ahead of the machine."""
        self.skew_s = 0.0
        """By how much what it shows is ahead of what it lives by."""
        self._jumped = asyncio.Event()

    def machine(self) -> float:
        """Returns the machine's own moment, which nothing moves."""
        return time.time()

    def now(self) -> float:
        """Returns the moment that lives, deadlines and retention go by."""
        return self.machine() + self.jumped_s

    def shown(self) -> float:
        """Returns the moment that answers and signatures tell."""
        return self.now() + self.skew_s

    def jump(self, seconds: float) -> None:
        """Moves the clock, ahead if positive; whoever sleeps until a moment notices."""
        self._set(self.jumped_s + seconds)

    def jump_to(self, jumped_s: float) -> None:
        """Lets the clock be `jumped_s` ahead of the machine's; whoever sleeps notices."""
        self._set(jumped_s)

    def reset(self) -> None:
        """Puts the clock right."""
        self.skew_s = 0.0
        self._set(0.0)

    async def sleep_until(self, moment: float) -> None:
        """Returns once `moment` has come."""
        while (pause_s := moment - self.now()) > 0:
            try:
                async with asyncio.timeout(min(pause_s, PAUSE_S_MAX)):
                    await self._jumped.wait()
            except TimeoutError:
                continue

    def _set(self, jumped_s: float) -> None:
        self.jumped_s = jumped_s
        jumped, self._jumped = self._jumped, asyncio.Event()
        jumped.set()


def date_header(
    clock: Clock,
) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Returns what puts the moment that `clock` shows into the `Date` of an answer."""

    async def put(_: web.Request, answer: web.StreamResponse) -> None:
        answer.headers["Date"] = formatdate(clock.shown(), usegmt=True)

    return put
