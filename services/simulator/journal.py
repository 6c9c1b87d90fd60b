"""Remembers the requests that came in, so that a test can judge the product by them."""

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

from aiohttp import web

from services.simulator.accounts import masked
from services.simulator.faults.fault import Subject
from services.simulator.faults.sending import Severed

__all__ = ["FAULT", "SUBJECT", "Entry", "Journal"]

ENTRIES_MAX = 5000

SUBJECT = web.RequestKey("subject", Subject)
"""Under which a listener leaves word of what a request is about."""
FAULT = web.RequestKey("fault", str)
"""Under which a listener leaves word of the kind of fault that it met."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Entry:
    """One request and its answer; times are seconds since the epoch."""

    begun_at: float
    """When its headers had been read."""
    at: float
    """When it was answered."""
    listener: str
    method: str
    path: str
    """Path and query, as they came."""
    headers: list[tuple[str, str]]
    """Every header line; the token is masked."""
    status: int | None
    """None if the connection ended before an answer."""
    account: str | None
    """Key of the account whose token or file it was."""
    generation: str | None
    """The customer's own name for its work: `g` in the query of the webhook address."""
    prediction: str | None
    """Which one was created, read, canceled or fetched."""
    fault: str | None
    """Kind of the fault that spoiled the answer."""


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
            begun_at = self._clock()
            try:
                response = await handler(request)
                status = None if isinstance(response, Severed) else response.status
                return response
            except web.HTTPException as answer:
                status = answer.status
                raise
            finally:
                self._entries.append(self._entry(listener, request, begun_at, status))

        return note

    def answer(self) -> list[dict[str, Any]]:
        """Returns all entries as JSON values."""
        return [asdict(entry) for entry in self._entries]

    def clear(self) -> None:
        """Forgets all entries."""
        self._entries.clear()

    def _entry(
        self, listener: str, request: web.Request, begun_at: float, status: int | None
    ) -> Entry:
        headers = [
            (name, masked(value) if name.lower() == "authorization" else value)
            for name, value in request.headers.items()
        ]
        subject = request.get(SUBJECT)
        return Entry(
            begun_at=begun_at,
            at=self._clock(),
            listener=listener,
            method=request.method,
            path=request.raw_path,
            headers=headers,
            status=status,
            account=subject and subject.account,
            generation=subject and subject.generation,
            prediction=subject and subject.prediction,
            fault=request.get(FAULT),
        )
