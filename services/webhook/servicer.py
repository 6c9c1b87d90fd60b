"""Answers the calls of WebhookService: requests become filters, stored events become messages."""

from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from reelworks.webhook.v1 import webhook_pb2, webhook_pb2_grpc

from services.runtime.telemetry import get_logger
from services.webhook.events import Events, EventState, StoredEvent
from services.webhook.requests import filter_of, next_page_token, place_of

__all__ = ["DOMAIN", "SERVICE_NAME", "WebhookServicer"]

DOMAIN = "webhook.reelworks.dev"
SERVICE_NAME = webhook_pb2.DESCRIPTOR.services_by_name["WebhookService"].full_name
PAGE_SIZE_DEFAULT = 50

logger = get_logger(__name__)


class WebhookServicer(webhook_pb2_grpc.WebhookServiceServicer):
    """WebhookService on the inbox; requests are valid when they come here."""

    def __init__(self, events: Events) -> None:
        self._events = events

    async def ListEvents(  # noqa: N802  The contract's name, as all below.
        self, request: webhook_pb2.ListEventsRequest, context: Any
    ) -> webhook_pb2.ListEventsResponse:
        """Answers a page of events, the last that came first."""
        del context
        page_size = request.page_size or PAGE_SIZE_DEFAULT
        # One more than asked for tells whether there is a next page.
        found = await self._events.page(filter_of(request.filter), page_size + 1, place_of(request))
        page = found[:page_size]
        more = len(found) > page_size
        return webhook_pb2.ListEventsResponse(
            events=map(_message, page),
            next_page_token=next_page_token(request, page[-1].sequence) if more else "",
        )

    async def GetEvent(  # noqa: N802
        self, request: webhook_pb2.GetEventRequest, context: Any
    ) -> webhook_pb2.Event:
        """Answers an event with its body and headers."""
        del context
        return _message(await self._events.find(int(request.event_id)))

    async def ReplayEvents(  # noqa: N802
        self, request: webhook_pb2.ReplayEventsRequest, context: Any
    ) -> webhook_pb2.ReplayEventsResponse:
        """Has events delivered once more."""
        del context
        replayed = await self._events.replay(filter_of(request.filter), dry_run=request.dry_run)
        if not request.dry_run:
            logger.info("replayed by an operator", events=replayed.count)
        return webhook_pb2.ReplayEventsResponse(
            replayed_count=replayed.count,
            gone_count=replayed.gone_count,
            events=map(_message, replayed.first),
        )

    async def DropEvents(  # noqa: N802
        self, request: webhook_pb2.DropEventsRequest, context: Any
    ) -> webhook_pb2.DropEventsResponse:
        """Gives events up."""
        del context
        sequences = list(map(int, request.event_ids))
        dropped = await self._events.drop(sequences, request.reason)
        logger.info("dropped by an operator", events=dropped)
        return webhook_pb2.DropEventsResponse(dropped_count=dropped)


def _message(event: StoredEvent) -> webhook_pb2.Event:
    return webhook_pb2.Event(
        event_id=str(event.sequence),
        webhook_id=event.webhook_id,
        generation_id=event.generation_id,
        attempt=event.attempt,
        state=event.state.value,
        disposition=event.disposition,
        last_error=event.last_error,
        drop_reason=event.drop_reason,
        tries=event.tries,
        refusals=event.refusals,
        query_verdict=event.query_verdict.upper(),
        secret_number=event.secret_number,
        body_size_bytes=event.body_bytes,
        body_sha256=event.body_sha256,
        body_gone=event.body_gone,
        sign_time=_timestamp(event.signed_at),
        receive_time=_timestamp(event.received_at),
        store_time=_timestamp(event.stored_at),
        deliver_time=_timestamp(event.delivered_at) if _is_delivered(event) else None,
        due_time=_timestamp(event.due_at),
        body=event.body,
        headers=[webhook_pb2.Event.Header(name=name, value=value) for name, value in event.headers],
    )


def _is_delivered(event: StoredEvent) -> bool:
    return event.state is EventState.DELIVERED


def _timestamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp
