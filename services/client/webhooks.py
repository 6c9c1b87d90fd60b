"""Stored webhooks: what the provider sent, what became of it, and how to replay or drop it."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from reelworks.webhook.v1 import webhook_pb2, webhook_pb2_grpc

from services.client.connection import Connection
from services.client.wire import moment, moment_if_set, named, named_on_wire, timestamp
from services.runtime.channel import invoke
from services.runtime.metrics import CallMetrics
from services.runtime.tls import Certificates

__all__ = [
    "Event",
    "EventFilter",
    "EventPage",
    "EventState",
    "QueryVerdict",
    "ReplayedEvents",
    "WebhookClient",
]

MESSAGE_BYTES_MAX = 9 * 1024 * 1024
"""Bodies of webhooks have up to 8 MiB."""


class EventState(StrEnum):
    """Where an event stands on its way to generation."""

    UNKNOWN = "UNKNOWN"
    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    DEAD = "DEAD"
    DROPPED = "DROPPED"


class QueryVerdict(StrEnum):
    """What the query of the address proved."""

    UNKNOWN = "UNKNOWN"
    GOOD = "GOOD"
    MISSING = "MISSING"
    BAD = "BAD"


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events are meant: those that satisfy every field that is set."""

    event_ids: Sequence[str] = ()
    webhook_ids: Sequence[str] = ()
    """With `event_ids` one field: an event named in either is meant."""
    generation_id: str = ""
    state: EventState | None = None
    received_from: datetime | None = None
    """Only those that arrived at this time or later."""
    received_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """A webhook whose signature was verified, and what became of it."""

    event_id: str
    """Ours: a decimal number, in order of arrival."""
    webhook_id: str
    """The provider's; several events may share it."""
    generation_id: str
    """What the address named; empty unless `query_verdict` is GOOD."""
    attempt: int
    """What the address named, 1 to 999; 0 unless `query_verdict` is GOOD."""
    state: EventState
    disposition: str
    """What generation answered; empty until it answered OK."""
    last_error: str
    """Why the last try failed; empty if it did not."""
    drop_reason: str
    """Why it was dropped; empty unless DROPPED."""
    tries: int
    """How often its delivery was tried."""
    refusals: int
    """How many answers so far count towards DEAD."""
    query_verdict: QueryVerdict
    secret_number: int
    """The secret that had signed it, 0 for the newest."""
    body_size_bytes: int
    """0 once the body is gone."""
    body_sha256: str
    body_gone: bool
    signed_at: datetime
    received_at: datetime
    stored_at: datetime
    delivered_at: datetime | None
    due_at: datetime | None
    """When it is tried next; None unless PENDING."""
    body: bytes
    """As received; empty in lists."""
    headers: tuple[tuple[str, str], ...]
    """Name and value; empty in lists."""


@dataclass(frozen=True, slots=True)
class EventPage:
    """A part of a list of events."""

    events: tuple[Event, ...]
    next_page_token: str
    """Asks for the next page; empty at the end."""


@dataclass(frozen=True, slots=True)
class ReplayedEvents:
    """What a replay did, or would do."""

    replayed_count: int
    gone_count: int
    """How many of the chosen stay as they are, since their bodies are gone."""
    events: tuple[Event, ...]
    """The first 100 of the replayed in order of arrival, as they were before."""


class WebhookClient(Connection):
    """Calls the webhook service's port for operators; every call can be repeated.

    Each method raises ServiceError, whose `reason` is one of the service's.
    """

    def __init__(
        self,
        address: str,
        certificates: Certificates | None = None,
        measured: CallMetrics | None = None,
    ) -> None:
        super().__init__(address, MESSAGE_BYTES_MAX, certificates, measured)
        self._stub = webhook_pb2_grpc.WebhookServiceStub(self._channel)

    async def list_events(
        self, chosen: EventFilter | None = None, page_size: int = 0, page_token: str = ""
    ) -> EventPage:
        """Returns a page of events, the last that came first; 0 takes 50, no filter all."""
        request = webhook_pb2.ListEventsRequest(
            filter=None if chosen is None else _filter(chosen),
            page_size=page_size,
            page_token=page_token,
        )
        response = await invoke(self._stub.ListEvents, request)
        return EventPage(tuple(map(_event, response.events)), response.next_page_token)

    async def events(
        self, chosen: EventFilter | None = None, page_size: int = 0
    ) -> AsyncGenerator[Event]:
        """Yields events, the last that came first, asking for pages as they are used."""
        page_token = ""
        while True:
            page = await self.list_events(chosen, page_size, page_token)
            for event in page.events:
                yield event
            page_token = page.next_page_token
            if not page_token:
                return

    async def get_event(self, event_id: str) -> Event:
        """Returns an event with its body and headers."""
        request = webhook_pb2.GetEventRequest(event_id=event_id)
        return _event(await invoke(self._stub.GetEvent, request))

    async def replay_events(self, chosen: EventFilter, *, dry_run: bool = False) -> ReplayedEvents:
        """Has events delivered once more, or with `dry_run` only says which.

        It may take minutes where many are chosen.
        """
        request = webhook_pb2.ReplayEventsRequest(filter=_filter(chosen), dry_run=dry_run)
        response = await invoke(self._stub.ReplayEvents, request)
        return ReplayedEvents(
            response.replayed_count, response.gone_count, tuple(map(_event, response.events))
        )

    async def drop_events(self, event_ids: Sequence[str], reason: str) -> int:
        """Gives events up for good and returns how many had not been dropped before."""
        request = webhook_pb2.DropEventsRequest(event_ids=event_ids, reason=reason)
        response = await invoke(self._stub.DropEvents, request)
        return response.dropped_count


def _filter(chosen: EventFilter) -> webhook_pb2.EventFilter:
    begin, end = chosen.received_from, chosen.received_before
    return webhook_pb2.EventFilter(
        event_ids=chosen.event_ids,
        webhook_ids=chosen.webhook_ids,
        generation_id=chosen.generation_id,
        state=None if chosen.state is None else named_on_wire(chosen.state, "STATE_UNSPECIFIED"),
        received_from=None if begin is None else timestamp(begin),
        received_before=None if end is None else timestamp(end),
    )


def _event(message: webhook_pb2.Event) -> Event:
    return Event(
        event_id=message.event_id,
        webhook_id=message.webhook_id,
        generation_id=message.generation_id,
        attempt=message.attempt,
        state=named(EventState, webhook_pb2.Event.State, message.state),
        disposition=message.disposition,
        last_error=message.last_error,
        drop_reason=message.drop_reason,
        tries=message.tries,
        refusals=message.refusals,
        query_verdict=named(QueryVerdict, webhook_pb2.Event.QueryVerdict, message.query_verdict),
        secret_number=message.secret_number,
        body_size_bytes=message.body_size_bytes,
        body_sha256=message.body_sha256,
        body_gone=message.body_gone,
        signed_at=moment(message.sign_time),
        received_at=moment(message.receive_time),
        stored_at=moment(message.store_time),
        delivered_at=moment_if_set(message, "deliver_time"),
        due_at=moment_if_set(message, "due_time"),
        body=message.body,
        headers=tuple((header.name, header.value) for header in message.headers),
    )
