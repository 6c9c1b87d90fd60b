"""Does the effect of a stage once, and tells the saga how it ended."""

import logging
from typing import assert_never

from services.generation.archive import Archive, Archived, Gone, NotAVideo
from services.generation.archive import Unreachable as NotFetched
from services.generation.events import (
    EffectFailed,
    Event,
    OutputLost,
    OutputRenewed,
    OutputStored,
    PredictionMissing,
    PredictionSeen,
    Source,
    Woken,
)
from services.generation.orphans import Orphan, Orphans
from services.generation.replicate import Found, Missing, Replicate, Unreachable
from services.generation.settlement import Settlement
from services.generation.state import Generation, Stage
from services.runtime.failpoints import failpoint
from services.runtime.telemetry import get_logger

__all__ = ["Effects"]

FETCHES_MIN = 3
"""So often a video is fetched before it is given up as none."""
_NOT_SAVED = "The video could not be saved. You were not charged; try again."

logger = get_logger(__name__)


class Effects:
    """What the stages of a generation do to the world; each can be repeated."""

    def __init__(
        self, settlement: Settlement, provider: Replicate, archive: Archive, orphans: Orphans
    ) -> None:
        self._settlement = settlement
        self._provider = provider
        self._archive = archive
        self._orphans = orphans

    async def do(self, generation: Generation, poll_after_s: float) -> Event:
        """Returns how the effect of the present stage ended.

        A prediction that still runs is not looked at again before `poll_after_s`.
        """
        match generation.stage:
            case Stage.RESERVING:
                return await self._settlement.reserve(generation)
            case Stage.RUNNING:
                return await self._look(generation, poll_after_s)
            case Stage.CANCELING:
                await self._provider.cancel(_job_id(generation))
                return await self._look(generation, 0.0)
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
                | Stage.CANCELED
            ):
                return Woken()
            case unreachable:
                assert_never(unreachable)

    async def end_orphan(self, orphan: Orphan) -> None:
        """Cancels a prediction that nobody uses, and notes how it is."""
        failpoint("orphan.claimed")
        await self._provider.cancel(orphan.job_id)
        failpoint("orphan.canceled")
        match await self._provider.get(orphan.job_id):
            case Found(prediction=prediction):
                done, status = await self._orphans.seen(orphan, prediction), prediction.status
            case Missing():
                done, status = await self._orphans.seen(orphan, None), "not found"
            case Unreachable(detail=detail):
                logger.warning("orphan not seen", job_id=orphan.job_id, detail=detail)
                return
            case unreachable:
                assert_never(unreachable)
        if done:
            # Each may cost money that nobody pays, so an operator shall know of it.
            logger.error(
                "orphan ended",
                job_id=orphan.job_id,
                generation_id=orphan.generation_id,
                status=status,
            )

    async def _look(self, generation: Generation, poll_after_s: float) -> Event:
        match await self._provider.get(_job_id(generation)):
            case Found(prediction=prediction):
                return PredictionSeen(prediction, Source.POLL, poll_after_s)
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
                # It may have been broken on its way only, and the provider keeps it for a while.
                is_last = generation.failures + 1 >= FETCHES_MIN
                logger.log(
                    logging.ERROR if is_last else logging.WARNING,
                    "output refused",
                    generation_id=generation.generation_id,
                    detail=detail,
                )
                if is_last:
                    return OutputLost(job_id, _NOT_SAVED)
                return EffectFailed(generation.stage, is_outage=True)
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


def _job_id(generation: Generation) -> str:
    assert generation.job_id is not None, "the stage has a prediction"
    return generation.job_id
