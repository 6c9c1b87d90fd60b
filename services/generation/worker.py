"""Does what the stages of generations ask for: claims what is due, acts, writes back.

There is no second path for recovery: whatever a process had under way when it died comes due again
when its lease ends, and a worker takes it up like anything else.
"""

import asyncio
import random
import time
from collections.abc import Collection, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, assert_never

from services.generation.archive import Archive, Archived, Gone, NotAVideo
from services.generation.archive import Unreachable as NotFetched
from services.generation.claims import Attempt, Claims
from services.generation.commands import AttemptRecord, Happen
from services.generation.events import (
    EffectFailed,
    Event,
    OutputLost,
    OutputRenewed,
    OutputStored,
    PredictionMissing,
    PredictionSeen,
    Woken,
)
from services.generation.replicate import Found, Missing, Replicate, Unreachable
from services.generation.settlement import Settlement
from services.generation.state import Generation, Stage
from services.generation.store import Store
from services.generation.submission import Submission
from services.generation.timing import Timing
from services.runtime.errors import ServiceError, ServiceFailed
from services.runtime.telemetry import get_logger

__all__ = ["Lane", "Worker", "lanes_of"]

LOOK_EVERY_S = 0.25
COUNT_EVERY_S = 5.0
POLLS_PER_S = 5.0
"""Polls of one replica, far below the provider's 3,000 reads a minute for the whole account."""
TROUBLE_PAUSE_S = 1.0
TROUBLE_PAUSE_S_MAX = 10.0
CREATE_SLOTS = 16

_NOT_SAVED = "The video could not be saved. You were not charged; try again."

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
        "provider": Lane(
            (Stage.RUNNING, Stage.CANCELING),
            slots=32,
            lease_s=timing.provider_lease_s,
            effect_s=timing.provider_call_s * 2,  # A cancel is followed by a look.
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
        settlement: Settlement,
        submission: Submission,
        provider: Replicate,
        archive: Archive,
        timing: Timing,
        stopping: asyncio.Event,
        grace_s: float,
    ) -> None:
        self._store = store
        self._claims = claims
        self._settlement = settlement
        self._submission = submission
        self._provider = provider
        self._archive = archive
        self._timing = timing
        self._stopping = stopping
        self._grace_s = grace_s
        self._lanes = lanes_of(timing)
        self._busy = dict.fromkeys([*self._lanes, "create"], 0)
        self._tasks: set[asyncio.Task[None]] = set()
        self._awake = asyncio.Event()
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
                self._poll_after_s = max(self._timing.poll_s, running / POLLS_PER_S)
            except ServiceError as error:
                logger.debug("running not counted", reason=error.reason)
            await asyncio.sleep(COUNT_EVERY_S)

    async def _claim(self) -> None:
        """Starts as much of the due work as there are free slots."""
        work = await self._claims.look()
        for name, lane in self._lanes.items():
            free = lane.slots - self._busy[name]
            stages = [stage for stage in lane.stages if stage in work.due]
            if not stages or free <= 0:
                continue
            for generation in await self._claims.claim_due(stages, free, lane.lease_s):
                self._start(name, self._work(generation, lane.effect_s))
        free = CREATE_SLOTS - self._busy["create"]
        if work.ready and free > 0:
            # Read before the claim: however long this process stands still after it, it never sends
            # a create later than this, and whoever looks for the prediction knows when to stop.
            send_before = time.monotonic() + self._timing.send_before_s
            for generation, attempt in await self._claims.claim_ready(
                free, self._submission.prepare
            ):
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
        event, record = await self._submission.submit(generation, attempt, now, send_before)
        # Unlike every other effect this one is never done again, so its outcome is kept until it
        # can be written, for as long as this process lives.
        pause_s = TROUBLE_PAUSE_S
        while not await self._write_back(generation, event, record):
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, TROUBLE_PAUSE_S_MAX)

    async def _work(self, generation: Generation, effect_s: float) -> None:
        """Does the effect of a stage and writes back how it ended."""
        try:
            async with asyncio.timeout(effect_s):
                event = await self._effect(generation)
        except TimeoutError:
            event = EffectFailed(generation.stage, is_outage=True)
        except Exception:
            # A defect, of ours or of a library: after eight in a row the generation is parked.
            logger.exception(
                "effect failed", generation_id=generation.generation_id, stage=generation.stage
            )
            event = EffectFailed(generation.stage, is_outage=False)
        await self._write_back(generation, event)

    async def _write_back(
        self, generation: Generation, event: Event, record: AttemptRecord | None = None
    ) -> bool:
        """Writes how an effect ended; returns False if the database did not take it."""
        command = Happen(generation.generation_id, event, generation.fence, record)
        try:
            after = await self._store.happen(command)
        except ServiceFailed:
            if isinstance(event, EffectFailed):
                raise
            # What came back cannot be stored. That counts as a failed effect, or it would be tried
            # for ever.
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
            logger.error("generation parked", generation_id=generation.generation_id)
        return True

    async def _effect(self, generation: Generation) -> Event:
        match generation.stage:
            case Stage.RESERVING:
                return await self._settlement.reserve(generation)
            case Stage.RUNNING:
                return await self._look(generation)
            case Stage.CANCELING:
                await self._provider.cancel(_job_id(generation))
                return await self._look(generation)
            case Stage.ARCHIVING:
                return await self._save(generation)
            case Stage.COMMITTING:
                return await self._settlement.commit(generation)
            case Stage.REFUNDING:
                return await self._settlement.refund(generation)
            case (
                Stage.READY
                | Stage.SUBMITTING
                | Stage.PARKED
                | Stage.REJECTED
                | Stage.COMPLETED
                | Stage.FAILED
            ):
                return Woken()
            case unreachable:
                assert_never(unreachable)

    async def _look(self, generation: Generation) -> Event:
        match await self._provider.get(_job_id(generation)):
            case Found(prediction=prediction):
                return PredictionSeen(prediction, self._poll_after_s)
            case Missing():
                return PredictionMissing(_job_id(generation))
            case Unreachable(detail=detail):
                logger.warning(
                    "prediction not seen", generation_id=generation.generation_id, detail=detail
                )
                return EffectFailed(generation.stage, is_outage=True)
            case unreachable:
                assert_never(unreachable)

    async def _save(self, generation: Generation) -> Event:
        job_id, url = _job_id(generation), generation.output_url
        assert url is not None, "a generation is archived from an address"
        match await self._archive.save(generation.user_id, generation.generation_id, url):
            case Archived(output=output):
                return OutputStored(job_id, output)
            case NotAVideo(detail=detail):
                logger.error(
                    "output refused", generation_id=generation.generation_id, detail=detail
                )
                return OutputLost(job_id, _NOT_SAVED)
            case Gone(detail=detail):
                return await self._renew(generation, detail)
            case NotFetched(detail=detail):
                logger.warning(
                    "output not fetched", generation_id=generation.generation_id, detail=detail
                )
                return EffectFailed(generation.stage, is_outage=True)
            case unreachable:
                assert_never(unreachable)

    async def _renew(self, generation: Generation, detail: str) -> Event:
        """Asks for a fresh address of an output that is gone from the one we had."""
        logger.warning("output moved", generation_id=generation.generation_id, detail=detail)
        match await self._provider.get(_job_id(generation)):
            case Found(prediction=prediction) if prediction.output_url is not None:
                if prediction.output_url == generation.output_url:
                    return EffectFailed(generation.stage, is_outage=True)
                return OutputRenewed(prediction.job_id, prediction.output_url)
            case Found() | Missing():
                return OutputLost(_job_id(generation), _NOT_SAVED)
            case Unreachable():
                return EffectFailed(generation.stage, is_outage=True)
            case unreachable:
                assert_never(unreachable)


async def _first_of(*tasks: asyncio.Task[Any], seconds: float) -> None:
    await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)


def _job_id(generation: Generation) -> str:
    assert generation.job_id is not None, "the stage has a prediction"
    return generation.job_id
