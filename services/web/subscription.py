"""Gives one reader its mail: what is known when it comes, and then what happens."""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable
from datetime import datetime

from services.client.generations import Generation
from services.runtime.errors import ServiceError
from services.runtime.telemetry import get_logger
from services.web.mailbox import Letter, Mailbox, Reset

__all__ = ["PAUSE_S_MAX", "PAUSE_S_MIN", "Known", "Subscription", "jittered_s"]

PAUSE_S_MIN = 0.2
PAUSE_S_MAX = 15.0
"""Between two tries to read from a service that is away."""

Known = Callable[[datetime | None], AsyncGenerator[Generation]]
"""Yields what a user has unfinished, and what was updated after a moment."""

logger = get_logger(__name__)


class Subscription:
    """One open connection of a user."""

    def __init__(
        self,
        mailbox: Mailbox,
        known: Known,
        updated_after: datetime | None,
        draining: asyncio.Event,
        clock: Callable[[], datetime],
        heard: Callable[[bool], object],
    ) -> None:
        self.mailbox = mailbox
        """What waits for the reader."""
        self._known = known
        self.has_ended = False
        """Whether the reader shall be cut off: nothing more will come."""
        self._draining = draining
        self._clock = clock
        self._heard = heard
        self._awake = asyncio.Event()
        self._has_room = asyncio.Event()
        self._catching_up = asyncio.create_task(self._catch_up(updated_after))

    def wake(self) -> None:
        """Lets the reader look into its mailbox."""
        self._awake.set()

    def end(self) -> None:
        """Has the reader cut off."""
        self.has_ended = True
        self._catching_up.cancel()
        self._awake.set()

    async def take(self, limit_s: float) -> Letter | None:
        """Returns the next letter; None if none came in time, or this one or the process ends."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while not (self._draining.is_set() or self.has_ended):
                    self._awake.clear()
                    letter = self.mailbox.take(self._clock())
                    self._has_room.set()
                    if letter is not None:
                        if isinstance(letter.content, Reset):
                            self._catching_up.cancel()
                            self._catching_up = asyncio.create_task(self._catch_up(None))
                        return letter
                    await self._awake.wait()
        return None

    async def close(self) -> None:
        """Stops reading for a reader that has left."""
        self._catching_up.cancel()
        await asyncio.wait([self._catching_up])

    async def _catch_up(self, updated_after: datetime | None) -> None:
        """Puts what is known already into the mailbox, however long the service is away."""
        pause_s = PAUSE_S_MIN
        while True:
            try:
                async with contextlib.aclosing(self._known(updated_after)) as known:
                    async for generation in known:
                        while not self.mailbox.has_room:
                            self._has_room.clear()
                            await self._has_room.wait()
                        self.mailbox.put_known(generation)
                        self._awake.set()
                        if updated_after is not None:
                            # They come in order, so another try goes on from here.
                            updated_after = max(updated_after, generation.updated_at)
                break
            except ServiceError as error:
                logger.info("known generations not read", reason=error.reason)
            except Exception:  # A defect here must not end the stream.
                logger.exception("known generations not read")
                pause_s = PAUSE_S_MAX
            self._heard(False)  # Changes wait until what is known was read.
            await asyncio.sleep(jittered_s(pause_s))
            pause_s = min(pause_s * 2, PAUSE_S_MAX)
        self._heard(True)
        self.mailbox.end_known()
        self._awake.set()


def jittered_s(pause_s: float) -> float:
    """Returns a pause that differs among those who wait for the same."""
    return pause_s * random.uniform(0.5, 1)  # noqa: S311  Nothing secret.
