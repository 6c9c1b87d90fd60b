"""The saga's table as vectors: every stage with every event."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.generation.cancellation import CancelPolicy
from services.generation.events import (
    CancelRequested,
    CommitExpired,
    Committed,
    CreditsContradicted,
    Deleted,
    EffectFailed,
    Event,
    OutputLost,
    OutputRenewed,
    OutputStored,
    Poisoned,
    PredictionMissing,
    PredictionSeen,
    Refunded,
    Reserved,
    ReserveRefused,
    Resumed,
    Source,
    SubmitAbsent,
    SubmitClaimed,
    SubmitDeferred,
    SubmitRefused,
    Submitted,
    SubmitUnknown,
    Woken,
)
from services.generation.failures import explain_failure
from services.generation.prediction import Prediction
from services.generation.saga import begin, step
from services.generation.state import (
    Failure,
    FailureCode,
    Generation,
    Kind,
    Output,
    Request,
    Stage,
    Status,
    status_of,
)
from services.generation.timing import FAST, Timing

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
TIMING = Timing()
REQUEST = Request(Kind.TEXT_TO_VIDEO, "t2v-14B", "720p", "a red fox runs through fresh snow")
STARTED = NOW - 200 * SECOND
VIDEO = "https://replicate.delivery/xezq/out.mp4"
OTHER_VIDEO = "https://replicate.delivery/yhqm/out.mp4"
OUTPUT = Output("outputs/u/g.mp4", 4_711, "ab" * 32)
CANCELED_BY_USER = Failure(FailureCode.CANCELED, "You canceled it.")
TIMED_OUT = Failure(FailureCode.MODEL_TIMED_OUT, "The model took too long.")
LATEST_S, DEADLINE_S = 2040, 2100
"""From NOW to the last moment to submit, and to the deadline."""

GENERATION = Generation(
    generation_id="4b7f6a52-5b05-4e1f-9d9c-2f60ff0c5a11",
    user_id="u",
    request=REQUEST,
    price_credits=20,
    stage=Stage.READY,
    stage_since=NOW - 10 * SECOND,
    due_at=NOW,
    fence=7,
    created_at=NOW - 600 * SECOND,
    deadline_at=NOW + DEADLINE_S * SECOND,
    updated_at=NOW - 10 * SECOND,
    version=3,
)
RUNNING = replace(
    GENERATION,
    stage=Stage.RUNNING,
    attempt=1,
    job_id="job1",
    provider_status="processing",
    submitted_at=NOW - 300 * SECOND,
    started_at=STARTED,
    progress_percent=10,
)
ARCHIVING = replace(
    RUNNING,
    stage=Stage.ARCHIVING,
    provider_status="succeeded",
    provider_ended_at=NOW - 10 * SECOND,
    output_url=VIDEO,
)
COMMITTING = replace(ARCHIVING, stage=Stage.COMMITTING, output=OUTPUT)
REFUNDING = replace(RUNNING, stage=Stage.REFUNDING, failure=TIMED_OUT)
ENDED: dict[str, Any] = {"due_at": None, "finished_at": NOW - 10 * SECOND}

GENERATIONS = {
    Stage.RESERVING: replace(GENERATION, stage=Stage.RESERVING, created_at=NOW - 30 * SECOND),
    Stage.READY: GENERATION,
    Stage.SUBMITTING: replace(GENERATION, stage=Stage.SUBMITTING, attempt=2),
    Stage.RUNNING: RUNNING,
    Stage.CANCELING: replace(RUNNING, stage=Stage.CANCELING, failure=TIMED_OUT),
    Stage.ARCHIVING: ARCHIVING,
    Stage.COMMITTING: COMMITTING,
    Stage.REFUNDING: REFUNDING,
    Stage.PARKED: replace(
        COMMITTING,
        stage=Stage.PARKED,
        parked_from=Stage.COMMITTING,
        park_reason="credits answered ALREADY_REFUNDED",
        due_at=None,
    ),
    Stage.REJECTED: replace(
        GENERATION,
        stage=Stage.REJECTED,
        failure=Failure(FailureCode.ACCOUNT_NOT_FOUND, ""),
        **ENDED,
    ),
    Stage.COMPLETED: replace(
        COMMITTING, stage=Stage.COMPLETED, charged_credits=20, progress_percent=100, **ENDED
    ),
    Stage.FAILED: replace(REFUNDING, stage=Stage.FAILED, **ENDED),
    Stage.CANCELED: replace(
        REFUNDING, stage=Stage.CANCELED, refund_percent=100, failure=CANCELED_BY_USER, **ENDED
    ),
}


def said(status: str, job_id: str = "job1", **fields: Any) -> Prediction:
    return Prediction(job_id, status, **fields)


SUCCEEDED = said("succeeded", output_url=VIDEO, started_at=STARTED)
FAILED = said("failed", error="CUDA out of memory")
OUT_OF_MEMORY = explain_failure(FAILED)


def events_in(stage: Stage) -> dict[str, Event]:
    """Returns what can happen in a stage, by name; `other` is about something else."""
    elsewhere = Stage.COMMITTING if stage is Stage.REFUNDING else Stage.REFUNDING
    return {
        "reserved": Reserved(),
        "reserved, not open": Reserved(is_open=False),
        "too few credits": ReserveRefused(FailureCode.INSUFFICIENT_CREDITS, 5),
        "no account": ReserveRefused(FailureCode.ACCOUNT_NOT_FOUND),
        "claimed": SubmitClaimed(),
        "submitted": Submitted(2, said("starting")),
        "submitted, runs": Submitted(2, said("processing", progress_percent=5)),
        "submitted, succeeded": Submitted(2, SUCCEEDED),
        "submitted, failed": Submitted(2, FAILED),
        "submitted, other": Submitted(1, said("starting", "job0")),
        "refused": SubmitRefused(2, "seed: must be positive"),
        "refused, other": SubmitRefused(1, "seed: must be positive"),
        "deferred": SubmitDeferred(2),
        "deferred, other": SubmitDeferred(1),
        "put off": SubmitDeferred(2, wait_s=30),
        "unknown": SubmitUnknown(2),
        "unknown, other": SubmitUnknown(3),
        "absent": SubmitAbsent(2),
        "absent, other": SubmitAbsent(1),
        "starting": PredictionSeen(said("starting")),
        "processing": PredictionSeen(said("processing", progress_percent=37)),
        "polled slowly": PredictionSeen(said("processing"), poll_after_s=20),
        "new word": PredictionSeen(said("paused")),
        "succeeded": PredictionSeen(SUCCEEDED),
        "no output": PredictionSeen(said("succeeded")),
        "removed": PredictionSeen(said("succeeded", data_removed=True)),
        "no output, by webhook": PredictionSeen(said("succeeded"), Source.WEBHOOK),
        "failed": PredictionSeen(FAILED),
        "interrupted": PredictionSeen(said("failed", error="Director: unexpected error (E6716)")),
        "failed mutely": PredictionSeen(said("failed")),
        "canceled": PredictionSeen(said("canceled")),
        "aborted": PredictionSeen(said("aborted")),
        "succeeded, other": PredictionSeen(said("succeeded", "job0", output_url=VIDEO)),
        "failed, other": PredictionSeen(said("failed", "job0")),
        "missing": PredictionMissing("job1"),
        "missing, other": PredictionMissing("job0"),
        "stored": OutputStored("job1", OUTPUT),
        "stored, other": OutputStored("job0", OUTPUT),
        "renewed": OutputRenewed("job1", OTHER_VIDEO),
        "renewed, other": OutputRenewed("job0", OTHER_VIDEO),
        "lost": OutputLost("job1", "no MP4"),
        "lost, other": OutputLost("job0", "no MP4"),
        "committed": Committed(),
        "expired": CommitExpired(),
        "refunded": Refunded(),
        "contradicted": CreditsContradicted("ALREADY_REFUNDED"),
        "outage": EffectFailed(stage, is_outage=True),
        "defect": EffectFailed(stage, is_outage=False),
        "defect, other": EffectFailed(elsewhere, is_outage=False),
        "woken": Woken(),
        "cancel": CancelRequested(CancelPolicy(100, 75, 50)),
        "delete": Deleted(),
        "resumed": Resumed(),
        "resumed, to refund": Resumed(Stage.REFUNDING),
        "resumed, elsewhere": Resumed(Stage.RUNNING),
        "poisoned": Poisoned(),
    }


@dataclass(frozen=True)
class To:
    """What a cell of the table leads to. `due_s` is None if it is never due."""

    stage: Stage
    due_s: float | None
    visible: bool = True
    jitter: bool = False
    code: FailureCode | None = None
    message: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


def later(stage: Stage, due_s: float, *, jitter: bool = False, **fields: Any) -> To:
    """Nothing to see: the same stage, due again."""
    return To(stage, due_s, visible=False, jitter=jitter, fields=fields)


def refund(code: FailureCode, message: str | None = None, **fields: Any) -> To:
    return To(Stage.REFUNDING, 0, code=code, message=message, fields=fields)


def retried(stage: Stage) -> dict[str, To]:
    """What a failed effect leads to where it is repeated after 0.25 s."""
    return {
        "outage": later(stage, 0.25, jitter=True, failures=1),
        # A defect waits longer than an outage.
        "defect": later(stage, 2, jitter=True, failures=1, defects=1),
    }


ARCHIVED = {"provider_status": "succeeded", "output_url": VIDEO, "provider_ended_at": NOW}


def parked(stage: Stage, reason: str = "credits answered ALREADY_REFUNDED") -> To:
    fields = {"parked_from": stage, "park_reason": reason}
    return To(Stage.PARKED, None, fields=fields)


def deleted(stage: Stage) -> To:
    return To(stage, None, fields={"deleted_at": NOW})


def poisoned(stage: Stage) -> dict[str, To]:
    return {"poisoned": parked(stage, "it was begun again and again, and never ended")}


ADOPTED = {"job_id": "job1", "submitted_at": NOW}
LOOKED_AGAIN = later(Stage.RUNNING, 2, failures=1)
UNCERTAIN = later(Stage.SUBMITTING, DEADLINE_S, uncertain_since=NOW)
FLAGGED = {"refund_percent": 100}
STILL_CANCELING = later(Stage.CANCELING, 2, jitter=True)
CANCELED = {
    f"{status}": To(Stage.REFUNDING, 0, fields={"provider_status": status, "failure": TIMED_OUT})
    for status in ("failed", "canceled", "aborted")
}
F = FailureCode
FREED = {"parked_from": None, "park_reason": None}

TABLE: dict[Stage, dict[str, To | None]] = {
    Stage.RESERVING: {
        "reserved": To(Stage.READY, LATEST_S),
        "reserved, not open": refund(F.RESERVE_TIMEOUT),
        "too few credits": To(
            Stage.REJECTED, None, code=F.INSUFFICIENT_CREDITS, fields={"rejected_available": 5}
        ),
        "no account": To(Stage.REJECTED, None, code=F.ACCOUNT_NOT_FOUND),
        "contradicted": parked(Stage.RESERVING),
        **poisoned(Stage.RESERVING),
        "cancel": To(Stage.RESERVING, 0, fields=FLAGGED),
        **retried(Stage.RESERVING),
    },
    Stage.READY: {
        "claimed": To(Stage.SUBMITTING, 60, fields={"attempt": 1}),
        "cancel": To(Stage.REFUNDING, 0, fields=FLAGGED | {"failure": CANCELED_BY_USER}),
        **poisoned(Stage.READY),
        "woken": later(Stage.READY, LATEST_S),
        "outage": later(Stage.READY, LATEST_S),
        "defect": later(Stage.READY, LATEST_S),
    },
    Stage.SUBMITTING: {
        "submitted": To(
            Stage.RUNNING, 2, jitter=True, fields=ADOPTED | {"provider_status": "starting"}
        ),
        "submitted, runs": To(
            Stage.RUNNING,
            2,
            jitter=True,
            fields=ADOPTED
            | {"provider_status": "processing", "started_at": NOW, "progress_percent": 5},
        ),
        "submitted, succeeded": To(
            Stage.ARCHIVING, 0, fields=ADOPTED | ARCHIVED | {"started_at": STARTED}
        ),
        "submitted, failed": refund(
            F.MODEL_FAILED, OUT_OF_MEMORY, **ADOPTED, provider_status="failed"
        ),
        "refused": refund(F.INPUT_REJECTED, "seed: must be positive"),
        "deferred": To(Stage.READY, LATEST_S),
        "put off": To(Stage.READY, LATEST_S, fields={"not_before": NOW + 30 * SECOND}),
        # A create under way is answered first.
        "cancel": To(Stage.SUBMITTING, 0, fields=FLAGGED),
        **poisoned(Stage.SUBMITTING),
        "unknown": UNCERTAIN,
        "woken": UNCERTAIN,
        "outage": UNCERTAIN,
        "defect": UNCERTAIN,
    },
    Stage.RUNNING: {
        "starting": later(Stage.RUNNING, 2, jitter=True),
        "processing": To(Stage.RUNNING, 2, jitter=True, fields={"progress_percent": 37}),
        "polled slowly": later(Stage.RUNNING, 20, jitter=True),
        "new word": later(Stage.RUNNING, 2, jitter=True),
        "succeeded": To(Stage.ARCHIVING, 0, fields=ARCHIVED),
        "no output": refund(F.MODEL_FAILED, provider_status="succeeded"),
        # What was only told is asked for. Here it is due already.
        "no output, by webhook": None,
        "interrupted": To(
            Stage.READY,
            LATEST_S,
            fields={
                "resubmissions": 1,
                "job_id": None,
                "provider_status": None,
                "progress_percent": 0,
                "submitted_at": None,
                "started_at": None,
            },
        ),
        "cancel": To(Stage.CANCELING, 0, fields={"refund_percent": 50}),
        **poisoned(Stage.RUNNING),
        "removed": refund(F.OUTPUT_LOST, provider_status="succeeded"),
        "failed": refund(F.MODEL_FAILED, OUT_OF_MEMORY, provider_status="failed"),
        "failed mutely": refund(F.MODEL_FAILED, provider_status="failed"),
        "canceled": refund(F.MODEL_FAILED, provider_status="canceled"),
        "aborted": refund(F.MODEL_FAILED, provider_status="aborted"),
        "missing": later(Stage.RUNNING, 2, missing=1),
        "outage": LOOKED_AGAIN,
        "defect": later(Stage.RUNNING, 2, failures=1, defects=1),
    },
    Stage.CANCELING: {
        "starting": STILL_CANCELING,
        "processing": To(Stage.CANCELING, 2, jitter=True, fields={"progress_percent": 37}),
        "polled slowly": later(Stage.CANCELING, 20, jitter=True),
        "new word": STILL_CANCELING,
        "succeeded": To(Stage.ARCHIVING, 0, fields=ARCHIVED | {"failure": None}),
        "no output": refund(F.MODEL_TIMED_OUT, provider_status="succeeded"),
        "interrupted": CANCELED["failed"],
        # The deadline cancels it, not the user.
        "cancel": To(Stage.CANCELING, 0, fields=FLAGGED),
        **poisoned(Stage.CANCELING),
        "removed": refund(F.MODEL_TIMED_OUT, provider_status="succeeded"),
        **CANCELED,
        "failed mutely": CANCELED["failed"],
        "missing": later(Stage.CANCELING, 2, missing=1),
        "outage": later(Stage.CANCELING, 2, failures=1),
        "defect": later(Stage.CANCELING, 2, failures=1, defects=1),
    },
    Stage.ARCHIVING: {
        "stored": To(Stage.COMMITTING, 0, fields={"output": OUTPUT}),
        "renewed": later(Stage.ARCHIVING, 0.25, jitter=True, output_url=OTHER_VIDEO, failures=1),
        "lost": refund(F.OUTPUT_LOST, "no MP4"),
        **poisoned(Stage.ARCHIVING),
        **retried(Stage.ARCHIVING),
    },
    Stage.COMMITTING: {
        "committed": To(
            Stage.COMPLETED, None, fields={"charged_credits": 20, "progress_percent": 100}
        ),
        "expired": To(
            Stage.COMPLETED, None, fields={"charged_credits": 0, "progress_percent": 100}
        ),
        "contradicted": parked(Stage.COMMITTING),
        **poisoned(Stage.COMMITTING),
        **retried(Stage.COMMITTING),
    },
    Stage.REFUNDING: {
        "refunded": To(Stage.FAILED, None),
        "contradicted": parked(Stage.REFUNDING),
        **poisoned(Stage.REFUNDING),
        **retried(Stage.REFUNDING),
    },
    Stage.PARKED: {
        "committed": To(
            Stage.COMPLETED,
            None,
            fields=FREED | {"charged_credits": 20, "progress_percent": 100},
        ),
        "expired": To(
            Stage.COMPLETED, None, fields=FREED | {"charged_credits": 0, "progress_percent": 100}
        ),
        "resumed": To(Stage.COMMITTING, 0, fields=FREED),
        "resumed, to refund": refund(F.MODEL_FAILED, **FREED),
    },
    Stage.REJECTED: {"delete": deleted(Stage.REJECTED)},
    Stage.COMPLETED: {
        "delete": To(Stage.COMPLETED, None, fields={"deleted_at": NOW, "erase_at": NOW})
    },
    Stage.FAILED: {"delete": deleted(Stage.FAILED)},
    Stage.CANCELED: {"delete": deleted(Stage.CANCELED)},
}
VECTORS = [
    pytest.param(GENERATIONS[stage], event, TABLE[stage].get(name), id=f"{stage}-{name}")
    for stage in Stage
    for name, event in events_in(stage).items()
]


@pytest.mark.parametrize(("before", "event", "expected"), VECTORS)
def test_each_stage_answers_each_event_as_the_table_says(
    before: Generation, event: Event, expected: To | None
) -> None:
    after = step(before, event, NOW, TIMING)

    if expected is None:
        assert after is before
        return
    assert_became(before, after, expected)
    again = step(after, event, NOW, TIMING)
    if after.stage is not before.stage or after.stage in (Stage.READY, Stage.SUBMITTING):
        assert again is after
    elif not isinstance(event, PredictionMissing):
        assert (again.stage, again.version) == (after.stage, after.version)


def assert_became(before: Generation, after: Generation, expected: To) -> None:
    """Compares all fields, so that nothing changes which the table does not name."""
    fields = dict(expected.fields)
    if expected.due_s is None:
        assert after.due_at is None
    else:
        assert after.due_at is not None
        wait_s = (after.due_at - NOW).total_seconds()
        slack = 0.2 * expected.due_s if expected.jitter else 0
        assert expected.due_s - slack <= wait_s <= expected.due_s + slack
    if expected.code is not None:
        assert after.failure is not None
        assert after.failure.code is expected.code
        assert after.failure.message
        assert expected.message in (None, after.failure.message)
        fields["failure"] = after.failure
    if expected.stage is not before.stage:
        fields |= {"stage_since": NOW, "finished_at": NOW if expected.stage.is_final else None}
    if expected.visible:
        fields |= {"version": before.version + 1, "updated_at": NOW}
    assert after == replace(
        before, stage=expected.stage, due_at=after.due_at, fence=before.fence + 1, **fields
    )


def test_the_table_names_every_stage_and_only_events_that_exist() -> None:
    assert TABLE.keys() == set(Stage) == GENERATIONS.keys()
    for stage, row in TABLE.items():
        assert row.keys() <= events_in(stage).keys(), stage
        assert GENERATIONS[stage].stage is stage


def test_a_new_generation_is_claimed_by_its_maker_to_reserve_its_price() -> None:
    generation = begin(GENERATION.generation_id, "u", REQUEST, 20, NOW, TIMING)

    assert generation == Generation(
        generation_id=GENERATION.generation_id,
        user_id="u",
        request=REQUEST,
        price_credits=20,
        stage=Stage.RESERVING,
        stage_since=NOW,
        due_at=NOW + 15 * SECOND,
        fence=1,
        created_at=NOW,
        deadline_at=NOW + 45 * 60 * SECOND,
        updated_at=NOW,
        version=1,
    )
    assert generation.status is Status.QUEUED


@pytest.mark.parametrize(("age_s", "stage"), [(60, Stage.READY), (60.001, Stage.REFUNDING)])
def test_a_reservation_that_took_more_than_a_minute_is_given_back(
    age_s: float, stage: Stage
) -> None:
    before = replace(GENERATIONS[Stage.RESERVING], created_at=NOW - age_s * SECOND)

    assert step(before, Reserved(), NOW, TIMING).stage is stage


@pytest.mark.parametrize(
    ("stage", "event"),
    [
        (Stage.RESERVING, Reserved()),
        (Stage.READY, Woken()),
        (Stage.SUBMITTING, SubmitDeferred(2)),
    ],
)
def test_what_has_less_than_a_minute_left_is_not_submitted_any_more(
    stage: Stage, event: Event
) -> None:
    before = replace(GENERATIONS[stage], deadline_at=NOW + 60 * SECOND)

    after = step(before, event, NOW, TIMING)

    assert (after.stage, after.due_at) == (Stage.REFUNDING, NOW)
    assert after.failure is not None
    assert after.failure.code is FailureCode.QUEUE_TIMEOUT


def test_a_submission_is_put_off_a_hundred_times_at_the_most() -> None:
    before = replace(GENERATIONS[Stage.SUBMITTING], attempt=99)

    again = step(before, SubmitDeferred(99), NOW, TIMING)
    claimed = step(again, SubmitClaimed(), NOW, TIMING)
    after = step(claimed, SubmitDeferred(100), NOW, TIMING)

    assert [g.stage for g in (again, claimed)] == [Stage.READY, Stage.SUBMITTING]
    assert after.stage is Stage.REFUNDING
    assert after.failure is not None
    assert after.failure.code is FailureCode.QUEUE_TIMEOUT


@pytest.mark.parametrize(
    "event",
    [SubmitUnknown(2), Woken(), EffectFailed(Stage.SUBMITTING, is_outage=False)],
    ids=lambda event: type(event).__name__,
)
def test_an_uncertain_submit_waits_for_its_deadline_and_is_never_repeated(event: Event) -> None:
    before = GENERATIONS[Stage.SUBMITTING]

    waiting = step(before, event, NOW, TIMING)
    still = step(waiting, Woken(), before.deadline_at - SECOND, TIMING)
    ended = step(still, Woken(), before.deadline_at, TIMING)

    assert (still.stage, still.due_at) == (Stage.SUBMITTING, before.deadline_at)
    assert step(still, SubmitClaimed(), NOW, TIMING) is still
    assert ended.stage is Stage.REFUNDING
    assert ended.failure is not None
    assert ended.failure.code is FailureCode.SUBMIT_UNCERTAIN
    # What is found later is not adopted: the credits are on their way back.
    assert step(ended, Submitted(2, SUCCEEDED), before.deadline_at, TIMING) is ended


def test_a_webhook_adopts_the_prediction_of_an_uncertain_submit() -> None:
    uncertain = step(GENERATIONS[Stage.SUBMITTING], SubmitUnknown(2), NOW, TIMING)

    adopted = step(uncertain, Submitted(2, said("processing")), NOW + 5 * SECOND, TIMING)
    late_answer = step(adopted, Submitted(2, said("starting")), NOW + 6 * SECOND, TIMING)

    assert (adopted.stage, adopted.job_id) == (Stage.RUNNING, "job1")
    assert late_answer is adopted


@pytest.mark.parametrize(
    "event",
    [
        PredictionSeen(said("processing")),
        EffectFailed(Stage.RUNNING, is_outage=True),
        PredictionMissing("job1"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_the_deadline_cancels_and_two_minutes_later_refunds(event: Event) -> None:
    before = replace(RUNNING, submitted_at=RUNNING.deadline_at - SECOND)
    shortly_before = step(before, event, before.deadline_at - SECOND, TIMING)

    canceling = step(shortly_before, event, before.deadline_at, TIMING)
    begun = canceling.stage_since
    seen = PredictionSeen(said("processing"))
    still = step(canceling, seen, begun + 119 * SECOND, TIMING)
    ended = step(still, seen, begun + 120 * SECOND, TIMING)

    assert (shortly_before.stage, shortly_before.due_at) == (Stage.RUNNING, before.deadline_at)
    assert (canceling.stage, canceling.due_at) == (Stage.CANCELING, before.deadline_at)
    assert canceling.failure is not None
    assert canceling.failure.code is FailureCode.MODEL_TIMED_OUT
    assert (still.stage, still.due_at) == (Stage.CANCELING, begun + 120 * SECOND)
    assert (ended.stage, ended.failure) == (Stage.REFUNDING, canceling.failure)
    assert step(ended, PredictionSeen(SUCCEEDED), begun + 121 * SECOND, TIMING) is ended


def test_a_video_that_comes_while_it_is_being_canceled_is_kept_and_paid() -> None:
    generation = GENERATIONS[Stage.CANCELING]

    for event in (PredictionSeen(SUCCEEDED), OutputStored("job1", OUTPUT), Committed()):
        generation = step(generation, event, NOW, TIMING)

    assert (generation.stage, generation.charged_credits) == (Stage.COMPLETED, 20)
    assert generation.failure is None
    assert generation.status is Status.COMPLETED


def test_a_prediction_is_gone_when_it_was_missing_twice_in_a_row_a_minute_after_its_create() -> (
    None
):
    young = replace(RUNNING, submitted_at=NOW - 59 * SECOND)
    missing = PredictionMissing("job1")

    for _ in range(3):
        young = step(young, missing, NOW, TIMING)
    once = step(young, missing, NOW + SECOND, TIMING)
    seen = step(once, PredictionSeen(said("processing")), NOW + SECOND, TIMING)
    once_more = step(seen, missing, NOW + SECOND, TIMING)
    gone = step(once_more, missing, NOW + SECOND, TIMING)

    assert [g.missing for g in (young, once, seen, once_more)] == [0, 1, 0, 1]
    assert once_more.stage is Stage.RUNNING
    assert gone.stage is Stage.REFUNDING
    assert gone.failure is not None
    assert gone.failure.code is FailureCode.OUTPUT_LOST


@pytest.mark.parametrize(
    "event",
    [EffectFailed(Stage.ARCHIVING, is_outage=True), OutputRenewed("job1", OTHER_VIDEO)],
    ids=lambda event: type(event).__name__,
)
def test_a_video_that_cannot_be_saved_for_55_minutes_is_lost(event: Event) -> None:
    before = replace(ARCHIVING, failures=1_000, provider_ended_at=NOW - 3300 * SECOND)

    in_time = step(before, event, NOW - SECOND, TIMING)
    too_late = step(before, event, NOW, TIMING)

    assert in_time.stage is Stage.ARCHIVING
    assert too_late.stage is Stage.REFUNDING
    assert too_late.failure is not None
    assert too_late.failure.code is FailureCode.OUTPUT_LOST


EFFECTS = [
    Stage.RESERVING,
    Stage.RUNNING,
    Stage.CANCELING,
    Stage.ARCHIVING,
    Stage.COMMITTING,
    Stage.REFUNDING,
]


@pytest.mark.parametrize("stage", EFFECTS)
def test_an_effect_is_parked_at_its_eighth_defect_in_a_row(stage: Stage) -> None:
    generations = [GENERATIONS[stage]]
    for _ in range(8):
        generations.append(step(generations[-1], EffectFailed(stage, is_outage=False), NOW, TIMING))

    assert [g.stage for g in generations] == [stage] * 8 + [Stage.PARKED]
    parked = generations[-1]
    assert (parked.due_at, parked.finished_at, parked.version) == (None, None, 4)


@pytest.mark.parametrize("stage", EFFECTS)
@pytest.mark.parametrize("failures", [0, 7, 8, 100, 100_000])
def test_an_outage_never_parks_and_backs_off_for_a_minute_at_the_most(
    stage: Stage, failures: int
) -> None:
    before = replace(GENERATIONS[stage], failures=failures)

    after = step(before, EffectFailed(stage, is_outage=True), NOW, TIMING)

    assert (after.stage, after.failures) == (stage, failures + 1)
    assert after.due_at is not None
    nominal_s = min(0.25 * 2 ** min(failures, 30), 60)
    wait_s = (after.due_at - NOW).total_seconds()
    if stage in (Stage.RUNNING, Stage.CANCELING):
        assert max(2, 0.8 * nominal_s) <= wait_s <= max(2, 1.2 * nominal_s)
    else:
        assert 0.8 * nominal_s <= wait_s <= 1.2 * nominal_s


def test_generations_that_fail_together_do_not_come_back_together() -> None:
    outage = EffectFailed(Stage.COMMITTING, is_outage=True)
    moments = {
        step(replace(COMMITTING, failures=20, fence=fence), outage, NOW, TIMING).due_at
        for fence in range(50)
    }

    assert len(moments) > 40


@pytest.mark.parametrize("stage", [Stage.RUNNING, Stage.CANCELING])
def test_the_end_of_its_prediction_frees_what_was_parked_while_it_was_followed(
    stage: Stage,
) -> None:
    parked = replace(RUNNING, stage=Stage.PARKED, parked_from=stage, due_at=None)

    freed = step(parked, PredictionSeen(SUCCEEDED), NOW, TIMING)
    still = step(parked, PredictionSeen(said("processing")), NOW, TIMING)

    assert (freed.stage, freed.due_at, freed.parked_from) == (Stage.ARCHIVING, NOW, None)
    assert still is parked


@pytest.mark.parametrize("stage", [Stage.ARCHIVING, Stage.COMMITTING, Stage.REFUNDING])
def test_what_was_parked_later_stays_parked(stage: Stage) -> None:
    parked = replace(RUNNING, stage=Stage.PARKED, parked_from=stage, due_at=None)

    assert step(parked, PredictionSeen(SUCCEEDED), NOW, TIMING) is parked


def test_a_defect_after_many_outages_does_not_park() -> None:
    troubled = replace(COMMITTING, failures=100)

    after = step(troubled, EffectFailed(Stage.COMMITTING, is_outage=False), NOW, TIMING)

    assert (after.stage, after.failures, after.defects) == (Stage.COMMITTING, 101, 1)


def test_a_success_forgives_earlier_failures() -> None:
    troubled = replace(RUNNING, failures=7, defects=7)

    seen = step(troubled, PredictionSeen(said("processing")), NOW, TIMING)
    ended = step(troubled, PredictionSeen(SUCCEEDED), NOW, TIMING)

    assert (seen.failures, ended.failures) == (0, 0)
    assert (seen.defects, ended.defects) == (0, 0)


def test_progress_never_falls_and_reaches_100_only_with_the_video() -> None:
    at_37 = step(RUNNING, PredictionSeen(said("processing", progress_percent=37)), NOW, TIMING)
    older = step(at_37, PredictionSeen(said("processing", progress_percent=12)), NOW, TIMING)
    full = step(older, PredictionSeen(said("processing", progress_percent=100)), NOW, TIMING)

    assert [g.progress_percent for g in (at_37, older, full)] == [37, 37, 99]
    assert [g.version for g in (at_37, older, full)] == [4, 4, 5]


def test_what_runs_does_not_go_back_to_starting_when_a_webhook_is_late() -> None:
    starting = replace(RUNNING, provider_status="starting", started_at=None)

    processing = step(starting, PredictionSeen(said("processing")), NOW, TIMING)
    late = step(processing, PredictionSeen(said("starting")), NOW + SECOND, TIMING)

    assert (processing.provider_status, processing.started_at) == ("processing", NOW)
    assert (late.provider_status, late.started_at) == ("processing", NOW)
    assert late.version == processing.version


def test_the_words_of_a_refusal_are_kept_up_to_a_limit() -> None:
    after = step(GENERATIONS[Stage.SUBMITTING], SubmitRefused(2, "x" * 10_000), NOW, TIMING)

    assert after.failure == Failure(FailureCode.INPUT_REJECTED, "x" * 500)


@pytest.mark.parametrize("timing", [Timing(), FAST], ids=["production", "fast"])
def test_each_lease_outlasts_the_effect_that_it_covers(timing: Timing) -> None:
    assert timing.credits_lease_s > timing.credits_call_s
    assert timing.provider_lease_s > 2 * timing.provider_call_s  # A cancel, then a look.
    assert timing.provider_lease_s > timing.send_before_s + timing.provider_call_s
    assert timing.archive_lease_s > timing.archive_call_s


@pytest.mark.parametrize(
    ("stage", "status"),
    [
        (Stage.RESERVING, Status.QUEUED),
        (Stage.READY, Status.QUEUED),
        (Stage.SUBMITTING, Status.QUEUED),
        (Stage.RUNNING, Status.PROCESSING),
        (Stage.CANCELING, Status.PROCESSING),
        (Stage.ARCHIVING, Status.PROCESSING),
        (Stage.COMMITTING, Status.PROCESSING),
        (Stage.REFUNDING, Status.PROCESSING),
        (Stage.PARKED, Status.PROCESSING),
        (Stage.REJECTED, Status.FAILED),
        (Stage.COMPLETED, Status.COMPLETED),
        (Stage.FAILED, Status.FAILED),
    ],
)
def test_a_final_status_is_shown_only_when_the_money_is_settled(
    stage: Stage, status: Status
) -> None:
    assert GENERATIONS[stage].status is status
    assert stage.is_final is (status in (Status.COMPLETED, Status.FAILED))


def test_what_was_parked_before_its_submission_is_still_queued() -> None:
    assert status_of(Stage.PARKED, begun=False) is Status.QUEUED


def test_what_has_no_time_left_is_not_submitted_whatever_a_worker_thinks() -> None:
    late = replace(GENERATION, deadline_at=NOW + TIMING.submit_margin_s * SECOND)

    refunding = step(late, SubmitClaimed(), NOW, TIMING)

    assert (refunding.stage, refunding.attempt) == (Stage.REFUNDING, 0)


@pytest.mark.parametrize(
    ("event", "stage"),
    [
        (Submitted(2, said("processing")), Stage.RUNNING),
        (SubmitRefused(2, "seed: must be positive"), Stage.REFUNDING),
        (SubmitDeferred(2), Stage.READY),
        (SubmitUnknown(2), Stage.PARKED),
        (SubmitAbsent(2), Stage.PARKED),
        (Submitted(1, said("processing")), Stage.PARKED),
    ],
)
def test_what_is_known_of_its_create_frees_what_was_parked_before(
    event: Event, stage: Stage
) -> None:
    submitting = replace(GENERATIONS[Stage.SUBMITTING], uncertain_since=NOW)
    stuck = step(submitting, Poisoned(), NOW, TIMING)

    after = step(stuck, event, NOW, TIMING)

    assert stuck.parked_from is Stage.SUBMITTING
    assert after.stage is stage
    assert (after.parked_from is None) == (stage is not Stage.PARKED)


def test_what_was_copied_and_then_given_up_is_erased() -> None:
    lost = step(ARCHIVING, OutputLost("job1", "no MP4"), NOW, TIMING)

    failed = step(lost, Refunded(), NOW, TIMING)

    assert (failed.stage, failed.erase_at) == (Stage.FAILED, NOW)


@pytest.mark.parametrize(
    ("left_s", "stage", "resubmissions"),
    [(DEADLINE_S, Stage.READY, 1), (DEADLINE_S - LATEST_S, Stage.REFUNDING, 0)],
)
def test_what_was_absent_is_counted_as_sent_again_only_if_there_is_time_for_it(
    left_s: float, stage: Stage, resubmissions: int
) -> None:
    absent = replace(
        GENERATIONS[Stage.SUBMITTING],
        uncertain_since=NOW - 10 * SECOND,
        deadline_at=NOW + left_s * SECOND,
    )

    after = step(absent, SubmitAbsent(2), NOW, TIMING)

    assert (after.stage, after.resubmissions) == (stage, resubmissions)
