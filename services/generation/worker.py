"""Works on what is due: claims it, has its effect done, writes back how that ended.

There is no second path for recovery: whatever a process had under way when it died comes due again
when its lease ends, and a worker takes it up like anything else.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Collection, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from structlog.contextvars import bind_contextvars

from services.generation.claims import Attempt, Claims
from services.generation.commands import AttemptRecord, Happen
from services.generation.effects import Effects
from services.generation.events import EffectFailed, Event, SubmitUnknown, Woken
from services.generation.gate import Gate, GatePolicy, admit
from services.generation.orphans import Orphan, Orphans
from services.generation.searches import Searcher
from services.generation.state import Generation, Stage
from services.generation.store import Store
from services.generation.submission import Submission
from services.generation.timing import Timing
from services.runtime.errors import ServiceError, ServiceFailed
from services.runtime.failpoints import failpoint
from services.runtime.telemetry import get_logger
from services.runtime.tracing import CallSpan, resume_trace, spanning

__all__ = ["Lane", "Worker", "lanes_of"]

LOOK_EVERY_S = 0.25
COUNT_EVERY_S = 5.0
TROUBLE_PAUSE_S = 1.0
TROUBLE_PAUSE_S_MAX = 10.0
CREATE_SLOTS = 16
ORPHAN_SLOTS = 4

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Lane:
    """A kind of effect with slots of its own: slow downloads must not starve refunds."""

    stages: Collection[Stage]
    slots: int
    lease_s: float
    effect_s: float
    """How long one effect may take, within its lease."""


def lanes_of(timing: Timing) -> Mapping[str, Lane]:
    """Returns the lanes of a worker."""
    return {
        "credits": Lane(
            (Stage.RESERVING, Stage.COMMITTING, Stage.REFUNDING),
            slots=32,
            lease_s=timing.credits_lease_s,
            effect_s=timing.credits_call_s,
        ),
        "cancels": Lane(
            (Stage.CANCELING,),
            slots=16,
            lease_s=timing.provider_lease_s,
            effect_s=timing.provider_call_s * 2,  # A cancel is followed by a look.
        ),
        "polls": Lane(
            (Stage.RUNNING,),
            slots=16,
            lease_s=timing.provider_lease_s,
            effect_s=timing.provider_call_s,
        ),
        "archive": Lane(
            (Stage.ARCHIVING,),
            slots=4,
            lease_s=timing.archive_lease_s,
            effect_s=timing.archive_call_s,
        ),
        # These have no effect: their time is up.
        "timers": Lane(
            (Stage.READY, Stage.SUBMITTING),
            slots=32,
            lease_s=timing.credits_lease_s,
            effect_s=timing.credits_call_s,
        ),
    }


class Worker:
    """Works until `stopping` is set, then lets what is under way end, for `grace_s` at the most."""

    def __init__(
        self,
        store: Store,
        claims: Claims,
        effects: Effects,
        submission: Submission,
        orphans: Orphans,
        searcher: Searcher,
        timing: Timing,
        polls_per_s: float,
        stopping: asyncio.Event,
        grace_s: float,
    ) -> None:
        """Takes how often a second this replica may look at predictions."""
        self._store = store
        self._claims = claims
        self._effects = effects
        self._submission = submission
        self._orphans = orphans
        self._searcher = searcher
        self._timing = timing
        self._stopping = stopping
        self._grace_s = grace_s
        self._lanes = lanes_of(timing)
        self._alone = Lane((), 1, timing.archive_lease_s, timing.archive_call_s)
        self._busy = dict.fromkeys([*self._lanes, "create", "orphans", "search", "alone"], 0)
        self._tasks: set[asyncio.Task[None]] = set()
        self._awake = asyncio.Event()
        self._polls = GatePolicy(polls_per_s, max(int(polls_per_s), 1), in_flight_max=2**31)
        self._poll_gate = Gate(0.0, _clock())
        self._poll_after_s = timing.poll_s

    def wake(self) -> None:
        """Has the worker look for work at once."""
        self._awake.set()

    async def run(self) -> None:
        """Claims and works, until `stopping` is set; a database that is away is waited for."""
        stopped = asyncio.create_task(self._stopping.wait())
        counting = asyncio.create_task(self._count_running())
        try:
            while not self._stopping.is_set():
                self._awake.clear()
                try:
                    await self._claim()
                except ServiceError as error:
                    logger.warning("no work claimed", reason=error.reason)
                    await _first_of(stopped, seconds=TROUBLE_PAUSE_S)
                    continue
                except Exception:
                    # A defect; the calls that are answered meanwhile shall go on, and so shall we.
                    logger.exception("no work claimed")
                    await _first_of(stopped, seconds=TROUBLE_PAUSE_S_MAX)
                    continue
                awake = asyncio.create_task(self._awake.wait())
                # The jitter keeps replicas from looking at the same moment.
                await _first_of(stopped, awake, seconds=LOOK_EVERY_S * random.uniform(0.8, 1.2))  # noqa: S311
                awake.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=self._grace_s)
        finally:
            # What has not ended comes due again when its lease does.
            for task in (stopped, counting, *self._tasks):
                task.cancel()
            await asyncio.gather(stopped, counting, *self._tasks, return_exceptions=True)

    async def _count_running(self) -> None:
        """Spaces the polls of one prediction by how many there are."""
        while True:
            try:
                running = await self._claims.count_running()
                self._poll_after_s = max(self._timing.poll_s, running / self._polls.rate_per_s)
            except ServiceError as error:
                logger.debug("running not counted", reason=error.reason)
            await asyncio.sleep(COUNT_EVERY_S)

    async def _claim(self) -> None:
        """Starts as much of the due work as there are free slots."""
        work = await self._claims.look()
        if work.suspect or self._busy["alone"]:
            # What may have killed workers takes nothing else with it, but for the moves of money,
            # which are quick and shall wait for nothing: all the rest ends first.
            await self._claim_lane("credits", self._lanes["credits"], work.due)
            if len(self._tasks) > self._busy["credits"]:
                return
            lease_s, effect_s = self._alone.lease_s, self._alone.effect_s
            suspect = await self._claims.claim_suspect(lease_s)
            if suspect is not None:
                self._start("alone", self._work(suspect, effect_s))
                return
        for name, lane in self._lanes.items():
            await self._claim_lane(name, lane, work.due)
        if work.ready:
            await self._claim_creates()
        if work.orphans and (free := ORPHAN_SLOTS - self._busy["orphans"]) > 0:
            for orphan in await self._orphans.claim(free):
                self._start("orphans", self._end_orphan(orphan))
        if work.search and not self._busy["search"]:
            self._start("search", self._search())

    async def _claim_lane(self, name: str, lane: Lane, due: Collection[Stage]) -> None:
        free = lane.slots - self._busy[name]
        stages = [stage for stage in lane.stages if stage in due]
        if name == "polls" and stages:
            # After an outage thousands may be due at once, and the provider counts reads too.
            free, _ = admit(self._poll_gate, self._polls, 0, free, _clock())
        if not stages or free <= 0:
            return
        claimed = await self._claims.claim_due(stages, free, lane.lease_s)
        if name == "polls":
            _, self._poll_gate = admit(self._poll_gate, self._polls, 0, len(claimed), _clock())
        for generation in claimed:
            self._start(name, self._work(generation, lane.effect_s))

    async def _claim_creates(self) -> None:
        free = CREATE_SLOTS - self._busy["create"]
        if free <= 0:
            return
        # Read before the claim: however long this process stands still after it, it never sends a
        # create later than this, and whoever looks for the prediction knows when to stop.
        send_before = time.monotonic() + self._timing.send_before_s
        for generation, attempt in await self._claims.claim_ready(free, self._submission.prepare):
            self._start("create", self._submit(generation, attempt, send_before))

    def _start(self, lane: str, work: Coroutine[Any, Any, None]) -> None:
        self._busy[lane] += 1
        task = asyncio.create_task(work)
        self._tasks.add(task)

        def end(ended: asyncio.Task[None]) -> None:
            self._tasks.discard(ended)
            self._busy[lane] -= 1
            self._awake.set()  # A slot is free.

        task.add_done_callback(end)

    async def _submit(self, generation: Generation, attempt: Attempt, send_before: float) -> None:
        now = generation.stage_since  # The claim's time by the database.
        event: Event
        failpoint("submit.claimed")
        with _step(generation) as span:
            try:
                event, record = await self._submission.submit(generation, attempt, now, send_before)
            except Exception:
                # A defect of ours; whether it came before or after the create was sent, nobody
                # knows.
                logger.exception("submit failed", generation_id=generation.generation_id)
                event = SubmitUnknown(attempt.attempt)
                lost = "a defect; the log has it"
                record = AttemptRecord(attempt.attempt, "UNKNOWN", detail=lost)
            _tell(span, event)
        failpoint("submit.answered")
        # Unlike every other effect this one is never done again, so its outcome is kept until it
        # can be written, for as long as this process lives.
        pause_s = TROUBLE_PAUSE_S
        while not await self._write_back(generation, event, record):
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, TROUBLE_PAUSE_S_MAX)

    async def _work(self, generation: Generation, effect_s: float) -> None:
        """Does the effect of a stage and writes back how it ended."""
        with _step(generation) as span:
            event = await self._do(generation, effect_s)
            _tell(span, event)
        record = None
        if isinstance(event, Woken) and generation.stage is Stage.SUBMITTING:
            # Whoever sent the create died before it was answered, so it is looked for from now on.
            record = AttemptRecord(generation.attempt, "UNKNOWN", detail="nobody told its outcome")
        await self._write_back(generation, event, record)

    async def _do(self, generation: Generation, effect_s: float) -> Event:
        """Returns how the effect of a stage ended."""
        try:
            async with asyncio.timeout(effect_s):
                failpoint(f"{generation.stage}.claimed")
                event = await self._effects.do(generation, self._poll_after_s)
                failpoint(f"{generation.stage}.answered")
                return event
        except TimeoutError:
            return EffectFailed(generation.stage, is_outage=True)
        except Exception:
            # A defect, of ours or of a library: after eight in a row the generation is parked.
            logger.exception(
                "effect failed", generation_id=generation.generation_id, stage=generation.stage
            )
            return EffectFailed(generation.stage, is_outage=False)

    async def _end_orphan(self, orphan: Orphan) -> None:
        try:
            async with asyncio.timeout(self._timing.provider_call_s * 2):
                await self._effects.end_orphan(orphan)
        except (TimeoutError, ServiceError) as error:
            # Its lease ends, and it is seen to again.
            logger.warning("orphan not seen to", job_id=orphan.job_id, error=repr(error))
        except Exception:
            # A defect; it must not keep the worker from everything else.
            logger.exception("orphan not seen to", job_id=orphan.job_id)

    async def _search(self) -> None:
        try:
            async with asyncio.timeout(self._timing.search_lease_s):
                await self._searcher.search(self._timing)
        except (TimeoutError, ServiceError) as error:
            # Its lease ends, and somebody searches again.
            logger.warning("search not ended", error=repr(error))
        except Exception:
            # A defect; it must not keep the worker from everything else.
            logger.exception("search not ended")

    async def _write_back(
        self, generation: Generation, event: Event, record: AttemptRecord | None = None
    ) -> bool:
        """Writes how an effect ended; returns False if the database did not take it."""
        command = Happen(generation.generation_id, event, generation.fence, record)
        try:
            after = await self._store.happen(command)
        except ServiceFailed:
            if isinstance(event, EffectFailed | SubmitUnknown):
                raise
            # What came back cannot be stored. That counts as a failed effect, or it would be tried
            # for ever; a create is not tried again but looked for.
            if generation.stage is Stage.SUBMITTING:
                number = generation.attempt
                lost = AttemptRecord(number, "UNKNOWN", detail="its outcome could not be stored")
                return await self._write_back(generation, SubmitUnknown(number), lost)
            failed = EffectFailed(generation.stage, is_outage=False)
            return await self._write_back(generation, failed)
        except ServiceError as error:
            # The lease ends, and the effect is done again.
            logger.warning(
                "not written back",
                generation_id=generation.generation_id,
                outcome=type(event).__name__,
                reason=error.reason,
            )
            return False
        if after.stage is not generation.stage:
            logger.info(
                "generation",
                generation_id=generation.generation_id,
                stage=after.stage,
                attempt=after.attempt,
                job_id=after.job_id,
            )
        if after.stage is Stage.PARKED:
            logger.error(
                "generation parked",
                generation_id=generation.generation_id,
                why=after.park_reason,
            )
        return True


@contextlib.contextmanager
def _step(generation: Generation) -> Iterator[CallSpan | None]:
    """Has the log and the trace of its create say which generation is worked on.

    A poll is no step, and there are many.
    """
    bind_contextvars(generation_id=generation.generation_id, user_id=generation.user_id)
    resume_trace(generation.traceparent)
    if generation.traceparent is None or generation.stage is Stage.RUNNING:
        yield None
        return
    with spanning(
        f"generation {generation.stage}",
        traceparent=generation.traceparent,
        attributes={"reelworks.generation_id": generation.generation_id},
    ) as span:
        yield span


def _tell(span: CallSpan | None, event: Event) -> None:
    if span is not None:
        span.tell(reelworks__event=type(event).__name__)
        if isinstance(event, EffectFailed | SubmitUnknown):
            span.fail(type(event).__name__)


def _clock() -> datetime:
    """Returns a time that never goes back, in the form that the gate counts with."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=time.monotonic())


async def _first_of(*tasks: asyncio.Task[Any], seconds: float) -> None:
    await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
