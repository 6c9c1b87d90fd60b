"""Tells streams what changed: at once what we wrote, within a second what other replicas wrote."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from datetime import timedelta

from services.generation.history import History
from services.generation.state import Generation
from services.runtime.errors import ServiceError
from services.runtime.telemetry import get_logger

__all__ = ["OVERLAP", "Watchers"]

OVERLAP = timedelta(seconds=10)
"""How far back a reader starts: a change is visible a little after the time that it carries."""
REFRESH_S = 1.0
TROUBLE_PAUSE_S = 10.0
SENT_MAX = 1000
"""Of so many generations a stream knows which version it sent last."""

logger = get_logger(__name__)


class Watchers:
    """The open streams of this process."""

    def __init__(self, history: History, stopping: asyncio.Event) -> None:
        self._history = history
        self._stopping = stopping
        self._mailboxes: defaultdict[str, set[_Mailbox]] = defaultdict(set)

    def publish(self, generation: Generation) -> None:
        """Hands a changed generation to those who watch its user."""
        for mailbox in self._mailboxes.get(generation.user_id, ()):
            mailbox.put(generation)

    async def watch(
        self,
        user_id: str,
        known: AsyncIterator[Generation],
        announce: Callable[[], Awaitable[object]] | None = None,
    ) -> AsyncGenerator[Generation]:
        """Yields what `known` yields, read while changes are already being collected, then changes.

        If `known` yields nothing, `announce` is awaited where the changes begin. Ends when the
        process stops.
        """
        mailbox = _Mailbox()
        self._mailboxes[user_id].add(mailbox)
        try:
            async for generation in known:
                announce = None
                if mailbox.is_news(generation):
                    yield generation
            if announce is not None:
                await announce()
            async for generation in mailbox.take(self._stopping):
                yield generation
        finally:
            self._mailboxes[user_id].discard(mailbox)
            if not self._mailboxes[user_id]:
                del self._mailboxes[user_id]

    async def run(self) -> None:
        """Finds what other processes wrote, by one query a second for all watched users."""
        since = None
        while not self._stopping.is_set():
            pause_s = REFRESH_S
            try:
                now = await self._history.clock()
                if self._mailboxes:
                    changed = await self._history.changed(
                        set(self._mailboxes), (since or now) - OVERLAP
                    )
                    for generation in changed:
                        self.publish(generation)
                since = now
            except ServiceError as error:
                # What is missed meanwhile is found afterwards, since `since` stays where it was.
                logger.warning("changes not read", reason=error.reason)
            except Exception:  # A defect here must not stop the calls that are answered meanwhile.
                logger.exception("changes not read")
                pause_s = TROUBLE_PAUSE_S
            try:
                async with asyncio.timeout(pause_s):
                    await self._stopping.wait()
            except TimeoutError:
                pass


class _Mailbox:
    """What a stream has not sent yet: each generation once, the newest, so it never grows long."""

    def __init__(self) -> None:
        self._waiting: dict[str, Generation] = {}
        self._sent_versions: dict[str, int] = {}
        self._filled = asyncio.Event()

    def put(self, generation: Generation) -> None:
        waiting = self._waiting.get(generation.generation_id)
        sent_version = self._sent_versions.get(generation.generation_id, 0)
        if generation.version > max(sent_version, waiting.version if waiting else 0):
            # At the end, also if an older version waited further in front.
            self._waiting.pop(generation.generation_id, None)
            self._waiting[generation.generation_id] = generation
            self._filled.set()

    def is_news(self, generation: Generation) -> bool:
        """Tells whether a generation is newer than what was sent, and notes it as sent."""
        if generation.version <= self._sent_versions.get(generation.generation_id, 0):
            return False
        # At the end; what has not changed for longest is forgotten.
        self._sent_versions.pop(generation.generation_id, None)
        self._sent_versions[generation.generation_id] = generation.version
        if len(self._sent_versions) > SENT_MAX:
            del self._sent_versions[next(iter(self._sent_versions))]
        return True

    async def take(self, stopping: asyncio.Event) -> AsyncIterator[Generation]:
        """Yields what is put in, until `stopping` is set."""
        stop = asyncio.create_task(stopping.wait())
        filled = stop
        try:
            while not stopping.is_set():
                while self._waiting:
                    # The oldest first: a reader who is cut off goes on behind the newest it saw.
                    generation = self._waiting.pop(next(iter(self._waiting)))
                    if self.is_news(generation):
                        yield generation
                self._filled.clear()
                filled = asyncio.create_task(self._filled.wait())
                await asyncio.wait((stop, filled), return_when=asyncio.FIRST_COMPLETED)
                filled.cancel()
        finally:
            filled.cancel()
            stop.cancel()
