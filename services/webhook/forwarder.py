"""Hands stored events to generation until it has recorded them."""

import asyncio
import random
from dataclasses import dataclass
from typing import assert_never

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from reelworks.generation.v1 import prediction_event_pb2, prediction_event_pb2_grpc
from structlog.contextvars import bind_contextvars

from services.runtime.errors import ServiceError
from services.runtime.failpoints import failpoint
from services.runtime.telemetry import get_logger
from services.runtime.tracing import resume_trace
from services.webhook.inbox import ClaimedEvent, Inbox, Settlement
from services.webhook.metrics import WebhookMetrics
from services.webhook.tables import State
from services.webhook.traces import Traces

__all__ = ["DEADLINES_S", "MESSAGE_BYTES_MAX", "Answer", "Forwarder", "Timing", "settlement_of"]

DEADLINES_S = {"DeliverPredictionEvent": 5.0}
MESSAGE_BYTES_MAX = 9 * 1024 * 1024
"""Of a call, for bodies of up to 8 MiB."""

RETRY_MAX_S = 30.0
RETRY_DOUBLINGS_MAX = 10
RETRY_JITTER = 0.2
RELEASE_PAUSE_S = 10.0
"""Between two releases, since an event that alone is answered by UNAVAILABLE causes some."""

# How often an answer of this kind is met before the event is given up: the first are defects of
# ours, the others may be defects of generation that a release mends.
_REFUSALS_MAX = {
    grpc.StatusCode.INVALID_ARGUMENT: 5,
    grpc.StatusCode.OUT_OF_RANGE: 5,
    grpc.StatusCode.FAILED_PRECONDITION: 5,
    grpc.StatusCode.INTERNAL: 20,
    grpc.StatusCode.UNKNOWN: 20,
}
_SILENCE = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    }
)

_Disposition = prediction_event_pb2.DeliverPredictionEventResponse.Disposition

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """How the forwarder paces itself."""

    calls_max: int = 32
    """Calls in flight at once."""
    lease_s: float = 30.0
    """How long a claimed event is nobody else's; longer than a call may take."""
    tick_s: float = 1.0
    """How often it looks for events whose time has come, and probes an absent generation."""
    retry_s: float = 0.2
    """About how long after its first failure an event is tried again; later pauses double."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What generation answered to an event."""

    code: grpc.StatusCode
    disposition: int = 0
    """Only with OK."""
    detail: str = ""
    """Only with other codes."""


def settlement_of(event: ClaimedEvent, answer: Answer, retry_s: float) -> Settlement:
    """Returns what becomes of `event`; the pause after its first failure is `retry_s`."""
    if answer.code is grpc.StatusCode.OK:
        dead = answer.disposition == _Disposition.UNREADABLE
        return Settlement(
            event.sequence,
            event.lease_ends_at,
            State.DEAD if dead else State.DELIVERED,
            disposition=_name(answer.disposition),
        )
    refusals_max = _REFUSALS_MAX.get(answer.code)
    doublings = min(event.tries - 1, RETRY_DOUBLINGS_MAX)
    return Settlement(
        event.sequence,
        event.lease_ends_at,
        State.DEAD
        if refusals_max is not None and event.refusals + 1 >= refusals_max
        else State.PENDING,
        delay_s=min(RETRY_MAX_S, retry_s * 2**doublings),
        refused=refusals_max is not None,
        error=f"{answer.code.name}: {answer.detail}",
    )


class Forwarder:
    """Delivers events while `run` runs; any number of replicas share the work."""

    def __init__(
        self,
        inbox: Inbox,
        generation: "prediction_event_pb2_grpc.PredictionEventServiceAsyncStub",
        arrived: asyncio.Event,
        *,
        timing: Timing | None = None,
        metrics: WebhookMetrics | None = None,
        traces: Traces | None = None,
    ) -> None:
        """Takes `arrived`, which somebody sets when there is an event to deliver."""
        self._inbox = inbox
        self._generation = generation
        self._wake = arrived
        self._timing = timing or Timing()
        self._metrics = metrics or WebhookMetrics()
        self._traces = traces or Traces()
        self._calls_in_flight = 0
        self._more_are_due = False
        # Until it has answered, generation is taken to be away.
        self._away = True
        self._probe_at = 0.0
        """When it may be asked next; 0 until it was found to be away."""
        self._window = 1
        self._release_due = False
        self._released_at = float("-inf")
        self._stopping = False

    async def run(self) -> None:
        """Delivers until `stop` was called and the calls in flight have ended."""
        await self._take_over()
        async with asyncio.TaskGroup() as deliveries:
            while not self._stopping:
                self._wake.clear()
                room = self._room()
                claimed = await self._claim(room) if room else []
                # With less room than events, the end of a call is a reason to look again.
                self._more_are_due = len(claimed) == room
                self._calls_in_flight += len(claimed)
                for event in claimed:
                    deliveries.create_task(self._deliver(event))
                try:
                    async with asyncio.timeout(self._timing.tick_s):
                        await self._wake.wait()
                except TimeoutError:
                    pass  # Time for those whose pause or lease has ended.

    def stop(self) -> None:
        """Begins no more calls."""
        self._stopping = True
        self._wake.set()

    def _room(self) -> int:
        """Returns how many calls may begin now."""
        if not self._away:
            return self._window - self._calls_in_flight
        # One at a time, so that a returning generation meets no storm.
        is_time = asyncio.get_running_loop().time() >= self._probe_at
        return 1 if is_time and not self._calls_in_flight else 0

    async def _take_over(self) -> None:
        """Has come due what a process that is no more was delivering, or had paused."""
        try:
            await self._inbox.drop_leases()
            await self._inbox.release_paused()
        except ServiceError as error:
            logger.warning("nothing taken over", cause=str(error))

    async def _claim(self, room: int) -> list[ClaimedEvent]:
        try:
            if self._release_due:
                await self._inbox.release_paused()
                self._release_due = False
            claimed = await self._inbox.claim(room, self._timing.lease_s)
            if not claimed and self._away and self._probe_at:
                # Without a probe, nobody would learn that generation is back. Whoever is due goes
                # first, so that an event which alone is answered by UNAVAILABLE hides nothing.
                await self._inbox.release_paused()
                claimed = await self._inbox.claim(room, self._timing.lease_s)
            return claimed
        except Exception as error:  # Whatever it is, events must still be stored meanwhile.
            logger.warning("events not claimed", cause=str(error), exc_info=_unexpected(error))
            return []

    async def _deliver(self, event: ClaimedEvent) -> None:
        try:
            failpoint("forward.claimed")
            resume_trace(self._traces.take(event.webhook_id))
            bind_contextvars(webhook_id=event.webhook_id, generation_id=event.generation_id)
            answer = await self._call(event)
            failpoint("forward.answered")
            self._metrics.delivered(*_labels(answer))
            self._note(answer)
            jitter = random.uniform(1 - RETRY_JITTER, 1 + RETRY_JITTER)  # noqa: S311
            settlement = settlement_of(event, answer, self._timing.retry_s * jitter)
            await self._inbox.settle(settlement)
            failpoint("forward.settled")
            _log(event, settlement)
        except Exception as error:  # Whatever it is, the lease ends it, and others go on.
            logger.warning(
                "delivery not recorded",
                webhook_id=event.webhook_id,
                cause=str(error),
                exc_info=_unexpected(error),
            )
        finally:
            self._calls_in_flight -= 1
            if self._more_are_due or not self._calls_in_flight:
                self._wake.set()

    async def _call(self, event: ClaimedEvent) -> Answer:
        received_time = Timestamp()
        received_time.FromDatetime(event.received_at)
        try:
            response = await self._generation.DeliverPredictionEvent(
                prediction_event_pb2.DeliverPredictionEventRequest(
                    webhook_id=event.webhook_id,
                    generation_id=event.generation_id,
                    attempt=event.attempt,
                    received_time=received_time,
                    payload=event.body,
                )
            )
        except grpc.aio.AioRpcError as error:
            return Answer(error.code(), detail=error.details() or "")
        return Answer(grpc.StatusCode.OK, disposition=response.disposition)

    def _note(self, answer: Answer) -> None:
        """Notes whether generation is there, and how much it may be given at once."""
        now = asyncio.get_running_loop().time()
        if answer.code is grpc.StatusCode.UNAVAILABLE:
            if not self._away:
                logger.warning("generation is away", detail=answer.detail)
            self._away = True
            self._probe_at = now + self._timing.tick_s
        elif answer.code not in _SILENCE:
            if self._away:
                logger.info("generation answers")
                self._away = False
                self._window = 1
                # What waits for its time does so since generation was away.
                self._release_due = now - self._released_at >= RELEASE_PAUSE_S
                self._released_at = now if self._release_due else self._released_at
            # One more for each answer doubles what is given at once with every round trip.
            self._window = min(self._timing.calls_max, self._window + 1)


def _log(event: ClaimedEvent, settlement: Settlement) -> None:
    log = logger.bind(
        webhook_id=event.webhook_id,
        generation_id=event.generation_id,
        tries=event.tries,
        disposition=settlement.disposition,
    )
    match settlement.state:
        case State.DELIVERED:
            unmatched = (_Disposition.ORPHAN, _Disposition.UNMATCHED)
            if settlement.disposition in map(_name, unmatched):
                log.warning("delivered, but no generation uses it")
            else:
                log.info("delivered")
        case State.DEAD:
            log.error("dead", error=settlement.error)
        case State.PENDING:
            log.debug("not delivered yet", error=settlement.error)
        case _:
            assert_never(settlement.state)


def _labels(answer: Answer) -> tuple[str, str]:
    is_ok = answer.code is grpc.StatusCode.OK
    return answer.code.name, _name(answer.disposition) if is_ok else ""


def _name(disposition: int) -> str:
    """Returns the name of a disposition; a newer one than we know keeps its number."""
    known = disposition in _Disposition.values()
    return _Disposition.Name(disposition) if known else str(disposition)


def _unexpected(error: Exception) -> Exception | None:
    """Returns an error whose stack is worth a look."""
    return None if isinstance(error, ServiceError) else error
