"""Bounds what images take of memory, in which each of them is as a whole."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from services.runtime.errors import Overloaded

__all__ = ["ImagePlace", "ImagePlaces"]

BYTES_MAX = 128 * 1024 * 1024
"""Of all images that are under way, as far as they have come."""
USER_PLACES_MAX = 4
"""Images of one user."""
TURNS_MAX = 4
"""Images that are being handed on: each then takes about four times its size besides."""
TURN_S_MAX = 10.0
RETRY_S = 2.0


class ImagePlaces:
    """The images that are under way in this process.

    What was sent is counted, not what was announced: who sends slowly takes little.
    """

    def __init__(
        self,
        bytes_max: int = BYTES_MAX,
        user_places_max: int = USER_PLACES_MAX,
        turns_max: int = TURNS_MAX,
        turn_s_max: float = TURN_S_MAX,
    ) -> None:
        self.bytes_left = bytes_max
        """How much more may come."""
        self._user_places_max = user_places_max
        self._turns = asyncio.Semaphore(turns_max)
        self._turn_s_max = turn_s_max
        self._held: Counter[str] = Counter()

    @contextlib.contextmanager
    def hold(self, user_id: str) -> Iterator["ImagePlace"]:
        """Holds a place for an image of a user; raises Overloaded if there is none."""
        if self._held[user_id] >= self._user_places_max:
            raise Overloaded(
                "TOO_MANY_UPLOADS",
                f"{self._user_places_max} images of yours are under way; wait for one of them.",
                RETRY_S,
                limit=self._user_places_max,
            )
        self._held[user_id] += 1
        place = ImagePlace(self)
        try:
            yield place
        finally:
            self.bytes_left += place.bytes_taken
            self._held[user_id] -= 1
            if not self._held[user_id]:
                del self._held[user_id]

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits until an image may be handed on; raises Overloaded if that takes too long."""
        try:
            async with asyncio.timeout(self._turn_s_max):
                await self._turns.acquire()
        except TimeoutError:
            raise _full() from None
        try:
            yield
        finally:
            self._turns.release()


@dataclass(slots=True)
class ImagePlace:
    """What one image takes."""

    _places: ImagePlaces
    bytes_taken: int = 0

    def take(self, size_bytes: int) -> None:
        """Makes room for a piece of the image; raises Overloaded if there is none."""
        if size_bytes > self._places.bytes_left:
            raise _full()
        self._places.bytes_left -= size_bytes
        self.bytes_taken += size_bytes


def _full() -> Overloaded:
    return Overloaded("TOO_MANY_UPLOADS", "Too many images are under way.", RETRY_S)
