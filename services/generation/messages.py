"""Turns values of the service into messages of the contract."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from google.protobuf import duration_pb2, timestamp_pb2
from reelworks.generation.v1 import generation_pb2

from services.generation.cancellation import CancelPolicy, refund_of_cancel
from services.generation.catalog import PROMPT_CHARACTERS_MAX, PROMPT_CHARACTERS_MIN, Model
from services.generation.estimates import Eta, Line, eta_of
from services.generation.image_records import UPLOAD, ImageRecord
from services.generation.intake import Quoted
from services.generation.reconciliation import Reconciliation
from services.generation.state import Generation, Stage
from services.generation.statistics import Stats
from services.runtime.errors import ServiceError
from services.runtime.telemetry import get_logger

__all__ = [
    "Messages",
    "image_message",
    "model_message",
    "quote_message",
    "stage_name",
    "stats_message",
    "timestamp",
]

_Wire = generation_pb2.Generation
_Stats = generation_pb2.GetStatsResponse

logger = get_logger(__name__)


class Messages:
    """Turns generations into messages, with what holds only now: addresses, places, times."""

    def __init__(
        self,
        link: Callable[[str], str],
        cancel_policy: CancelPolicy,
        line: Callable[[], Awaitable[Line]],
    ) -> None:
        self._link = link
        self._cancel_policy = cancel_policy
        self._line = line

    async def of(self, generation: Generation) -> generation_pb2.Generation:
        """Returns the message of a generation as it is now."""
        message = _lasting(generation)
        refund_credits = refund_of_cancel(generation, self._cancel_policy)
        if refund_credits is not None:
            message.cancel_refund_credits = refund_credits
        output = generation.output
        is_kept = generation.erased_at is None and generation.deleted_at is None
        if generation.stage is Stage.COMPLETED and output is not None and is_kept:
            message.video_uri = self._link(output.key)
            if output.thumbnail_key is not None:
                message.thumbnail_uri = self._link(output.thumbnail_key)
        if not generation.stage.is_final:
            message.MergeFrom(await self._outlook(generation))
        return message

    async def _outlook(self, generation: Generation) -> generation_pb2.Generation:
        """Returns place and time of a generation that has not ended."""
        try:
            line = await self._line()
        except ServiceError as error:
            # What has happened is answered, even if nobody knows how long the rest takes.
            logger.info("queue not read", reason=error.reason)
            return _Wire()
        return _Wire(queue_position=line.position(generation), eta=_eta(eta_of(generation, line)))


def _lasting(generation: Generation) -> generation_pb2.Generation:
    """Returns the part of a message that `version` counts the changes of."""
    request, output, failure = generation.request, generation.output, generation.failure
    message = _Wire(
        user_id=generation.user_id,
        generation_id=generation.generation_id,
        kind=request.kind.value,
        model=request.model,
        resolution=request.resolution,
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        image_uri=request.image_uri,
        aspect_ratio=request.aspect_ratio,
        seed=request.seed,
        status=generation.status.value,
        stage=stage_name(generation.stage),
        progress_percent=generation.progress_percent,
        cost_credits=generation.price_credits,
        charged_credits=generation.charged_credits,
        job_id=generation.job_id or "",
        attempt=generation.attempt,
        create_time=timestamp(generation.created_at),
        submit_time=timestamp(generation.submitted_at),
        start_time=timestamp(generation.started_at),
        finish_time=timestamp(generation.finished_at),
        update_time=timestamp(generation.updated_at),
        version=generation.version,
        video_seconds=output.video_seconds if output is not None else None,
        retry_of=generation.retry_of or "",
        delete_time=timestamp(generation.deleted_at),
        media_remove_time=timestamp(generation.erased_at),
    )
    # While the provider is still asked, nothing is decided.
    if failure is not None and generation.stage.is_final:
        message.error.CopyFrom(_Wire.Error(code=failure.code.value, message=failure.message))
    return message


def stage_name(stage: Stage) -> str:
    """Returns the contract's name of a stage."""
    return f"STAGE_{stage.value}"


def model_message(model: Model) -> generation_pb2.Model:
    """Returns the message of a model."""
    return generation_pb2.Model(
        model=model.model,
        display_name=model.display_name,
        kind=model.kind.value,
        resolutions=[
            generation_pb2.Model.Resolution(
                resolution=variant.resolution,
                price_credits=variant.price_credits,
                parameters=variant.parameters,
            )
            for variant in model.variants
        ],
        prompt_characters_min=PROMPT_CHARACTERS_MIN,
        prompt_characters_max=PROMPT_CHARACTERS_MAX,
    )


def image_message(record: ImageRecord) -> generation_pb2.UploadImageResponse:
    """Returns the message of a stored image."""
    return generation_pb2.UploadImageResponse(
        image_uri=f"{UPLOAD}{record.image_id}",
        content_type=record.content_type,
        size_bytes=record.size_bytes,
        width_pixels=record.width_pixels,
        height_pixels=record.height_pixels,
        expire_time=timestamp(record.expires_at),
    )


def quote_message(quoted: Quoted) -> generation_pb2.QuoteGenerationResponse:
    """Returns the message of a quote."""
    return generation_pb2.QuoteGenerationResponse(
        cost_credits=quoted.price_credits,
        available_credits=quoted.available_credits,
        available_after_credits=quoted.available_credits - quoted.price_credits,
        queue_ahead=quoted.queue_ahead,
        eta=_eta(quoted.eta),
        quote_token=quoted.token,
        expire_time=timestamp(quoted.expires_at),
    )


def stats_message(
    stats: Stats, comparison: Reconciliation | None
) -> generation_pb2.GetStatsResponse:
    """Returns the message of how the service is doing."""
    p50_s, p90_s = stats.completion_s or (None, None)
    return _Stats(
        stages=[
            _Stats.StageCount(
                stage=stage_name(count.stage),
                generations=count.generations,
                oldest_time=timestamp(count.oldest_at),
            )
            for count in stats.stages
        ],
        ends=[
            _Stats.EndCount(
                status=end.status.value,
                code=None if end.code is None else end.code.value,
                generations=end.generations,
            )
            for end in stats.ends
        ],
        success_ratio=stats.success_ratio,
        completion_p50=_duration(p50_s),
        completion_p90=_duration(p90_s),
        ends_by_webhook=stats.ends_by_webhook,
        ends_by_poll=stats.ends_by_poll,
        unsettled_credits=stats.unsettled_credits,
        live_orphans=stats.live_orphans,
        orphans=stats.orphans,
        creates_paused_until=timestamp(stats.paused_until),
        creates_paused_why=stats.paused_why,
        findings=[
            _Stats.Finding(kind=kind, generations=number)
            for kind, number in sorted(comparison.findings.items())
        ]
        if comparison is not None
        else [],
        compare_time=timestamp(comparison.reconciled_at if comparison is not None else None),
    )


def timestamp(moment: datetime | None) -> timestamp_pb2.Timestamp | None:
    """Returns the message of a moment; None for None, which leaves a field unset."""
    if moment is None:
        return None
    message = timestamp_pb2.Timestamp()
    message.FromDatetime(moment)
    return message


def _eta(eta: Eta | None) -> generation_pb2.Eta | None:
    if eta is None:
        return None
    return generation_pb2.Eta(
        likely_time=timestamp(eta.likely_at), latest_time=timestamp(eta.latest_at)
    )


def _duration(seconds: float | None) -> duration_pb2.Duration | None:
    if seconds is None:
        return None
    duration = duration_pb2.Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration
