"""Streams what happens to a user's generations and credits, as it happens."""

import random
import time
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Header
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel

from services.client.credits import Balance
from services.client.generations import Generation
from services.web import resources
from services.web.callers import Caller, SignedIn
from services.web.event_ids import format_position
from services.web.limits import CallRate, StreamSlot
from services.web.mailbox import Letter, Reset
from services.web.openapi import problems
from services.web.parts import WiredParts
from services.web.sessions import SESSION
from services.web.subscription import Subscription

__all__ = ["Nothing", "Removed", "Tick", "ends_at", "router", "stream_events"]

TICK_S = 30.0
"""Between two signs of life that a page can see; the comments between them it cannot."""
RETRY_MS_MIN = 500
RETRY_MS_MAX = 3000
"""Readers who were cut off together come back spread over this."""

router = APIRouter(tags=["events"])


class Removed(BaseModel):
    """A generation that was deleted."""

    generation_id: str
    version: int


class Tick(BaseModel):
    """A sign of life."""

    time: resources.Moment


class Nothing(BaseModel):
    """All that an event says is its name."""


async def _subscribe(
    caller: SignedIn,
    parts: WiredParts,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> AsyncGenerator[Subscription]:
    # As a dependency, it refuses before the answer begins and ends whenever the answer does.
    async with parts.hub.subscribe(caller.user_id, last_event_id) as subscription:
        parts.metrics.stream_opened()
        try:
            yield subscription
        finally:
            parts.metrics.stream_ended()


@router.get(
    "/api/events",
    # Each opening reads what is known from the services.
    dependencies=[CallRate, StreamSlot],
    response_class=EventSourceResponse,
    summary="What happens, live",
    responses=problems(401, 429, 503),
)
async def stream_events(
    caller: SignedIn,
    parts: WiredParts,
    subscription: Annotated[Subscription, Depends(_subscribe)],
) -> AsyncGenerator[ServerSentEvent]:
    """Streams your generations and your balance: as they are, then whenever they change.

    Without `Last-Event-ID` the balance and every unfinished generation come first; with it, what
    changed since that event, or a `reset` if that is more than a week ago. Events: `generation`, a
    whole one; `removed`, the id and version of a deleted one; `balance`, the whole; `tick`, every
    30 seconds; `reset`: forget what you know and read your history again; `bye`: connect again now.
    They may repeat: of two about one generation the one with the greater version is the newer.

    A stream that ends without `bye` could not be kept true: if the next is refused (503), read your
    history now and then until one is not.
    """
    retry_ms = random.randint(RETRY_MS_MIN, RETRY_MS_MAX)  # noqa: S311  Nothing secret.
    yield ServerSentEvent(comment="open", retry=retry_ms)
    ticks_at = time.monotonic() + TICK_S
    newest_at = datetime.now(UTC)
    end = ends_at(caller, newest_at)
    while not parts.draining.is_set():
        # Who was let in is not let in for ever.
        left_s = (end - datetime.now(UTC)).total_seconds()
        if left_s <= 0:
            break
        letter = await subscription.take(max(0.0, min(ticks_at - time.monotonic(), left_s)))
        if subscription.has_ended:
            return  # Whoever is told to come back now would be refused.
        if letter is not None:
            yield _event(letter)
            match letter.content:
                # What is older was read, and is no news; nor is a repetition.
                case Generation(updated_at=updated_at) if updated_at > newest_at:
                    newest_at = updated_at
                    age = datetime.now(UTC) - updated_at
                    parts.metrics.event_sent(age.total_seconds())
        if time.monotonic() >= ticks_at:
            ticks_at = time.monotonic() + TICK_S
            yield _named("tick", Tick(time=datetime.now(UTC)))
    yield _named("bye", Nothing())


def ends_at(caller: Caller, now: datetime) -> datetime:
    """Returns when a stream that begins now has to end: by when it is proven who reads it.

    A session is renewed by requests, and a page that only watches makes none. Its stream ends while
    half of the session is left, so that the next one renews it. One with less left could not be.
    """
    renewed_at = caller.expires_at - SESSION / 2
    return renewed_at if caller.by_cookie and renewed_at > now else caller.expires_at


def _event(letter: Letter) -> ServerSentEvent:
    event_id = format_position(letter.position)
    match letter.content:
        case Generation() as generation if generation.deleted_at is not None:
            removed = Removed(generation_id=generation.generation_id, version=generation.version)
            return _named("removed", removed, event_id)
        case Generation() as generation:
            return _named("generation", resources.Generation.of(generation), event_id)
        case Balance() as balance:
            return _named("balance", resources.Balance.of(balance), event_id)
        case Reset():
            return _named("reset", Nothing(), event_id)


def _named(event: str, data: BaseModel, event_id: str | None = None) -> ServerSentEvent:
    return ServerSentEvent(event=event, raw_data=data.model_dump_json(), id=event_id)
