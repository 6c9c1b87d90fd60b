"""Writes down the requests that come in, so that a test can judge the product by them."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from services.simulator.accounts import masked
from services.simulator.clock import Clock
from services.simulator.entries import Asked, Entry
from services.simulator.faults.fault import Subject
from services.simulator.faults.sending import Severed
from services.simulator.store import Store

__all__ = ["ASKED", "FAULT", "SUBJECT", "Journal"]

ENTRIES_MAX = 100_000
TRIM_EVERY = 1000
"""After how many entries the oldest leave; until then there may be so many more."""

SUBJECT = web.RequestKey("subject", Subject)
"""Under which a listener leaves word of what a request is about."""
FAULT = web.RequestKey("fault", str)
"""Under which a listener leaves word of the kind of fault that it met."""
ASKED = web.RequestKey("asked", Asked)
"""Under which the gate leaves word of what a create asks for."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Journal:
    """The latest 100,000 requests to the API and the file host.

    They lie in the store's file, so that they cost no memory and survive with it.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._first, self._last = store.journal_range()

    @property
    def missing(self) -> int:
        """How many entries have left, since the start or the last reset."""
        return max(0, self._first - 1)

    def middleware(self, listener: str) -> Any:
        """Returns the aiohttp middleware that writes down the requests to `listener`."""

        @web.middleware
        async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
            answer: web.StreamResponse | None = None
            begun_at, jumped_s = self._clock.machine(), self._clock.jumped_s
            try:
                answer = await handler(request)
                return answer
            except web.HTTPException as refusal:
                answer = refusal
                raise
            finally:
                if isinstance(answer, Severed):
                    answer = None
                self._write(self._entry(listener, request, begun_at, jumped_s, answer))

        return note

    def documents(self, after: int, limit: int) -> list[str]:
        """Returns the JSON of up to `limit` entries with numbers above `after`, oldest first."""
        return self._store.journal(after, limit)

    def clear(self) -> None:
        """Forgets all entries; numbers begin again."""
        self._store.trim_journal(self._last + 1)
        self._first = self._last = 0

    def _write(self, entry: Entry) -> None:
        self._last = entry.number
        self._first = self._first or entry.number
        self._store.append_journal(entry.number, entry)
        if entry.number - self._first >= ENTRIES_MAX + TRIM_EVERY:
            self._first = entry.number - ENTRIES_MAX + 1
            self._store.trim_journal(self._first)

    def _entry(
        self,
        listener: str,
        request: web.Request,
        begun_at: float,
        jumped_s: float,
        answer: web.StreamResponse | None,
    ) -> Entry:
        subject = request.get(SUBJECT)
        return Entry(
            number=self._last + 1,
            begun_at=begun_at,
            at=self._clock.machine(),
            jumped_s=jumped_s,
            listener=listener,
            method=request.method,
            path=request.raw_path,
            headers=tuple(
                (name, masked(value) if name.lower() == "authorization" else value)
                for name, value in request.headers.items()
            ),
            status=None if answer is None else answer.status,
            content_type=None if answer is None else answer.content_type,
            retry_after_s=None if answer is None else _retry_after_s(answer),
            account=subject and subject.account,
            generation=subject and subject.generation,
            prediction=subject and subject.prediction,
            fault=request.get(FAULT),
            asked=request.get(ASKED),
        )


def _retry_after_s(answer: web.StreamResponse) -> float | None:
    """Returns what the 429s that are written here say, whose headers and bodies are well known."""
    if answer.status != 429:
        return None
    if "Retry-After" in answer.headers:
        return float(answer.headers["Retry-After"])
    body = answer.body if isinstance(answer, web.Response) else None
    if not isinstance(body, bytes) or answer.content_type != "application/json":
        return None
    try:
        told = json.loads(body).get("retry_after")
    except ValueError:  # A fault has cut it.
        return None
    return None if told is None else float(told)
