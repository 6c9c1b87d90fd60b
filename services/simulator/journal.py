"""Remembers the requests that came in, so that a test can judge the product by them."""

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

from aiohttp import web

from services.simulator.accounts import masked

__all__ = ["Entry", "Journal"]

ENTRIES_MAX = 5000

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Entry:
    """One request and its answer."""

    at: float
    """When it was answered, in seconds since the epoch."""
    listener: str
    method: str
    path: str
    """Path and query, as they came."""
    headers: list[tuple[str, str]]
    """Every header line; the token is masked."""
    status: int | None
    """None if the connection ended before an answer."""


class Journal:
    """The latest 5,000 requests to the API and the file host, oldest first."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: deque[Entry] = deque(maxlen=ENTRIES_MAX)

    def middleware(self, listener: str) -> Any:
        """Returns the aiohttp middleware that writes down the requests to `listener`."""

        @web.middleware
        async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
            status: int | None = None
            try:
                response = await handler(request)
                status = response.status
                return response
            except web.HTTPException as answer:
                status = answer.status
                raise
            finally:
                self._entries.append(self._entry(listener, request, status))

        return note

    def answer(self) -> list[dict[str, Any]]:
        """Returns all entries as JSON values."""
        return [asdict(entry) for entry in self._entries]

    def clear(self) -> None:
        """Forgets all entries."""
        self._entries.clear()

    def _entry(self, listener: str, request: web.Request, status: int | None) -> Entry:
        headers = [
            (name, masked(value) if name.lower() == "authorization" else value)
            for name, value in request.headers.items()
        ]
        return Entry(self._clock(), listener, request.method, request.raw_path, headers, status)
