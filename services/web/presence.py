"""Knows which of the services behind web are away, however often it is asked."""

import asyncio

from services.client.credits import CreditsClient
from services.client.generations import GenerationClient

__all__ = ["Presence"]

PROBE_S = 1.0
KEPT_S = 1.0
"""How long an answer holds: anybody may ask, and it costs a call to each service."""


class Presence:
    """Whether credits and generation answer."""

    def __init__(self, credits_client: CreditsClient, generations: GenerationClient) -> None:
        self._services = {"credits": credits_client, "generation": generations}
        self._away: tuple[str, ...] = ()
        self._asked_at = float("-inf")
        self._asking = asyncio.Lock()

    async def away(self) -> tuple[str, ...]:
        """Returns the names of those that did not answer at most a second ago."""
        loop = asyncio.get_running_loop()
        async with self._asking:
            if loop.time() - self._asked_at >= KEPT_S:
                answers = await asyncio.gather(
                    *(service.is_serving(PROBE_S) for service in self._services.values())
                )
                found = zip(self._services, answers, strict=True)
                self._away = tuple(name for name, is_up in found if not is_up)
                self._asked_at = loop.time()
            return self._away
