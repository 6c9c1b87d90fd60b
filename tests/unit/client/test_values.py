"""What the generation service tells becomes plain values: what is unset is None, and not a zero."""

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from reelworks.generation.v1 import generation_pb2

from services.client.generations import (
    EndCount,
    Eta,
    Finding,
    GenerationErrorCode,
    Stage,
    StageCount,
    Status,
)
from services.client.history import generation_of
from services.client.offers import quote_of
from services.client.operations import parked_page_of, stats_of

WIRE = generation_pb2.Generation
STATS = generation_pb2.GetStatsResponse


def at(second: int) -> Timestamp:
    return Timestamp(seconds=second)


def moment(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)


def test_what_a_generation_has_not_yet_is_none() -> None:
    plain = generation_of(WIRE())

    assert (plain.queue_position, plain.eta, plain.video_seconds) == (None, None, None)
    assert (plain.cancel_refund_credits, plain.deleted_at, plain.media_removed_at) == (
        None,
        None,
        None,
    )


def test_a_zero_that_is_said_is_a_zero() -> None:
    plain = generation_of(WIRE(queue_position=0, video_seconds=0.0, cancel_refund_credits=0))

    assert (plain.queue_position, plain.video_seconds, plain.cancel_refund_credits) == (0, 0.0, 0)


def test_everything_about_a_generation_arrives() -> None:
    plain = generation_of(
        WIRE(
            queue_position=3,
            eta=generation_pb2.Eta(likely_time=at(10), latest_time=at(20)),
            thumbnail_uri="https://videos.example/still.jpg",
            video_seconds=5.1,
            retry_of="another",
            cancel_refund_credits=7,
            delete_time=at(30),
            media_remove_time=at(40),
            error=WIRE.Error(code=WIRE.Error.CANCELED, message="You canceled it."),
        )
    )

    assert plain.queue_position == 3
    assert plain.eta == Eta(moment(10), moment(20))
    assert plain.thumbnail_uri == "https://videos.example/still.jpg"
    assert plain.video_seconds == 5.1
    assert plain.retry_of == "another"
    assert plain.cancel_refund_credits == 7
    assert (plain.deleted_at, plain.media_removed_at) == (moment(30), moment(40))
    assert plain.error is not None
    assert plain.error.code is GenerationErrorCode.CANCELED


def test_a_quote_without_an_eta_has_none() -> None:
    quote = quote_of(
        generation_pb2.QuoteGenerationResponse(
            cost_credits=20, available_credits=5, available_after_credits=-15, expire_time=at(60)
        )
    )

    assert (quote.available_after_credits, quote.eta, quote.expires_at) == (-15, None, moment(60))


def test_figures_that_nothing_was_measured_for_are_none() -> None:
    stats = stats_of(STATS())

    assert (stats.success_ratio, stats.completion_p50_s, stats.completion_p90_s) == (
        None,
        None,
        None,
    )
    assert (stats.creates_paused_until, stats.compared_at) == (None, None)


def test_every_figure_arrives() -> None:
    half_minute = Duration()
    half_minute.FromTimedelta(timedelta(seconds=30.5))

    stats = stats_of(
        STATS(
            stages=[STATS.StageCount(stage=WIRE.STAGE_READY, generations=4, oldest_time=at(1))],
            ends=[
                STATS.EndCount(status=WIRE.COMPLETED, generations=8),
                STATS.EndCount(status=WIRE.FAILED, code=WIRE.Error.MODEL_FAILED, generations=2),
            ],
            success_ratio=0.0,
            completion_p50=half_minute,
            completion_p90=half_minute,
            findings=[STATS.Finding(kind="OVERDUE", generations=1)],
            compare_time=at(2),
        )
    )

    assert stats.stages == (StageCount(Stage.READY, 4, moment(1)),)
    assert stats.ends == (
        EndCount(Status.COMPLETED, None, 8),
        EndCount(Status.FAILED, GenerationErrorCode.MODEL_FAILED, 2),
    )
    assert stats.success_ratio == 0.0
    assert (stats.completion_p50_s, stats.completion_p90_s) == (30.5, 30.5)
    assert stats.findings == (Finding("OVERDUE", 1),)
    assert stats.compared_at == moment(2)


def test_what_is_parked_says_where_it_stopped() -> None:
    page = parked_page_of(
        generation_pb2.ListParkedResponse(
            parked=[
                generation_pb2.ListParkedResponse.Parked(
                    generation=WIRE(generation_id="g1", stage=WIRE.STAGE_PARKED),
                    stage=WIRE.STAGE_COMMITTING,
                    park_time=at(5),
                    reason="credits answered X",
                )
            ],
            next_page_token="more",
        )
    )

    (parked,) = page.parked
    assert (parked.generation.generation_id, parked.generation.stage) == ("g1", Stage.PARKED)
    assert (parked.stage, parked.parked_at) == (Stage.COMMITTING, moment(5))
    assert parked.reason == "credits answered X"
    assert page.next_page_token == "more"
