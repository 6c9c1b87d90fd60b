"""People who move credits all the time, and remember each movement that they were told is made."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from services.client.credits import CreditsClient, TransactionType
from services.runtime.errors import (
    Conflict,
    DeadlineExceeded,
    Overloaded,
    ServiceError,
    Unavailable,
)
from tests.failover.judging import Acknowledged

PROBES = 6
PREFIX = "probe-"
"""Of the users; those of a run of the whole stack have other names."""
PAUSE_S = 0.05
CREDITS = 10
_OPEN = (Unavailable, DeadlineExceeded, Conflict, Overloaded)
"""After which it is not known what came of a call."""


@dataclass
class Probes:
    """All who probe, and what they were told."""

    credits_: CreditsClient
    acknowledged: list[Acknowledged] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)
    """Answers that no outage explains."""
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Moves credits until it is over."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(PROBES):
                tasks.create_task(self._probe(f"{PREFIX}{number}"))

    async def answered_after(self, moment: float) -> None:
        """Waits until somebody was told of a movement that was asked for after a moment."""

        def is_answered() -> bool:
            latest = self.acknowledged[-PROBES:]
            return any(one.at - one.waited_s > moment for one in latest)

        while not is_answered():  # noqa: ASYNC110  Other processes decide.
            await asyncio.sleep(PAUSE_S)

    async def _probe(self, user_id: str) -> None:
        await self._insist(partial(self.credits_.open_account, user_id))
        for number in itertools.count():
            if self.over.is_set():
                return
            one = f"{user_id}-{number}"
            reserve = partial(self.credits_.reserve, user_id, one, CREDITS)
            await self._move(user_id, f"reserve:{one}", "RESERVATION", reserve)
            if number % 2:
                refund = partial(self.credits_.refund, user_id, one)
                await self._move(user_id, f"resolve:{one}", "REFUND", refund)
            else:
                commit = partial(self.credits_.commit, user_id, one)
                await self._move(user_id, f"resolve:{one}", "DEDUCTION", commit)
                add = partial(
                    self.credits_.add_credits, user_id, CREDITS, TransactionType.PURCHASE, one
                )
                await self._move(user_id, f"add:{one}", "PURCHASE", add)

    async def _move(
        self, user_id: str, key: str, kind: str, ask: Callable[[], Awaitable[object]]
    ) -> None:
        begun = time.time()
        answer, tries = await self._insist(ask)
        if answer is not None:
            was_replayed = bool(getattr(answer, "replayed", False))
            now = time.time()
            self.acknowledged.append(
                Acknowledged(user_id, key, kind, now, now - begun, tries, was_replayed)
            )

    async def _insist(self, ask: Callable[[], Awaitable[object]]) -> tuple[object | None, int]:
        """Returns an answer, and at which try it came; None if there is none before the end."""
        for tries in itertools.count(1):
            try:
                return await ask(), tries
            except _OPEN:
                if self.over.is_set():
                    break
                await asyncio.sleep(PAUSE_S)
            except ServiceError as error:
                if error.reason:
                    self.defects.append(f"{ask}: {error.status.name} {error.reason} {error}")
                    break
                await asyncio.sleep(PAUSE_S)
        return None, 0
