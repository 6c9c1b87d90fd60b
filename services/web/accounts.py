"""Opens the account of whoever comes for the first time, once in a process."""

import asyncio
from collections import OrderedDict

from services.client.credits import CreditsClient

__all__ = ["Accounts"]

KNOWN_MAX = 100_000
"""Users that are remembered; opening an account once more does nothing."""


class Accounts:
    """Who is known to have an account."""

    def __init__(self, credits_client: CreditsClient, known_max: int = KNOWN_MAX) -> None:
        self._credits = credits_client
        self._known_max = known_max
        self._known: OrderedDict[str, None] = OrderedDict()
        self._opening: dict[str, asyncio.Task[None]] = {}

    async def open(self, user_id: str) -> None:
        """Returns when a user has an account; raises ServiceError if that is not known.

        Those who come at once wait for the same call, and go on if one of them leaves.
        """
        if user_id in self._known:
            self._known.move_to_end(user_id)
            return
        task = self._opening.get(user_id)
        if task is None:
            task = self._opening[user_id] = asyncio.create_task(self._open(user_id))
            task.add_done_callback(_see)
        await asyncio.shield(task)

    async def close(self) -> None:
        """Waits for what is under way, which has a deadline."""
        if self._opening:
            await asyncio.wait(self._opening.values())

    async def _open(self, user_id: str) -> None:
        try:
            await self._credits.open_account(user_id)
        finally:
            del self._opening[user_id]
        self._known[user_id] = None
        if len(self._known) > self._known_max:
            self._known.popitem(last=False)


def _see(task: "asyncio.Task[None]") -> None:
    if not task.cancelled():
        task.exception()  # Who asked may have left before it was raised.
