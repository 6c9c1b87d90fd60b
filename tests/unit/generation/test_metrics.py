"""What happens to generations is counted once, as what it is, and by whose fault."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.generation.catalog import load_catalog
from services.generation.estimates import RunTimes, Spread
from services.generation.events import (
    Committed,
    EffectFailed,
    OutputStored,
    PredictionSeen,
    Refunded,
    Source,
    Submitted,
)
from services.generation.failures import Fault, explain_failure, fault_of
from services.generation.metrics import ESTIMATES_MAX, GenerationMetrics
from services.generation.open_figures import OpenFigures
from services.generation.prediction import Prediction
from services.generation.saga import begin
from services.generation.state import (
    Failure,
    FailureCode,
    Generation,
    Kind,
    Output,
    Request,
    Stage,
)
from services.generation.timing import FAST
from services.runtime.metrics import Metrics

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
REQUEST = Request(Kind.TEXT_TO_VIDEO, "t2v-14B", "480p", "a red fox in the snow")
ENDED = Prediction("job", "succeeded", predict_seconds=39.0)
OUTPUT = Output("key", 1, "0" * 64)


class Counted:
    """The measures of a process, and what they show."""

    def __init__(self) -> None:
        self._metrics = Metrics()
        self.of = GenerationMetrics(load_catalog(), self._metrics)

    def shown(self, name: str, **labels: str) -> float:
        return self._metrics.registry.get_sample_value(f"reelworks_{name}", labels) or 0.0


@pytest.fixture
def counted() -> Counted:
    return Counted()


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def generation(stage: Stage, since_s: float = 0, **changes: object) -> Generation:
    begun = begin("g", "u", REQUEST, 10, NOW, FAST)
    usual: dict[str, object] = {"stage": stage, "stage_since": at(since_s)}
    if stage.is_final:
        usual["finished_at"] = at(since_s)
    return replace(begun, **(usual | changes))  # type: ignore[arg-type]


RUNNING = generation(Stage.RUNNING, 2, job_id="job", submitted_at=at(2))
ARCHIVING = replace(RUNNING, stage=Stage.ARCHIVING, stage_since=at(40), provider_ended_at=at(40))
COMMITTING = replace(ARCHIVING, stage=Stage.COMMITTING, stage_since=at(45), output=OUTPUT)
COMPLETED = replace(
    COMMITTING, stage=Stage.COMPLETED, stage_since=at(46), finished_at=at(46), charged_credits=10
)
REFUNDING = replace(RUNNING, stage=Stage.REFUNDING, stage_since=at(30))


def test_a_video_is_counted_with_its_time_its_price_and_its_cost(counted: Counted) -> None:
    seen = PredictionSeen(ENDED, Source.WEBHOOK)

    counted.of.stepped(RUNNING, ARCHIVING, seen)
    counted.of.stepped(ARCHIVING, COMMITTING, OutputStored("job", OUTPUT))
    counted.of.stepped(COMMITTING, COMPLETED, Committed())

    assert counted.shown("generations_ended_total", status="COMPLETED", code="none", fault="none")
    assert counted.shown("completion_seconds_sum") == 46
    assert counted.shown("settle_seconds_sum") == 6
    assert counted.shown("stage_seconds_sum", stage="RUNNING") == 38
    assert counted.shown("archive_margin_seconds_sum") == 3595
    assert counted.shown("charged_credits_total", model="t2v-14B") == 10
    assert counted.shown("provider_seconds_total", model="t2v-14B", charged="yes") == 39
    assert counted.shown("provider_dollars_total", model="t2v-14B", charged="yes") == 0.4
    assert counted.shown("outcomes_total", source="webhook") == 1


def test_a_failure_gives_the_price_back_and_says_whose_fault_it_was(counted: Counted) -> None:
    failure = Failure(FailureCode.MODEL_TIMED_OUT, "")
    failed = replace(
        REFUNDING, stage=Stage.FAILED, stage_since=at(31), finished_at=at(31), failure=failure
    )

    counted.of.stepped(REFUNDING, failed, Refunded())

    labels = {"status": "FAILED", "code": "MODEL_TIMED_OUT", "fault": "provider"}
    assert counted.shown("generations_ended_total", **labels) == 1
    assert counted.shown("refunded_credits_total", status="FAILED") == 10
    assert counted.shown("settle_seconds_sum") == 1
    assert counted.shown("completion_seconds_count") == 0


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        (Source.WEBHOOK, "webhook"),
        (Source.POLL, "poll"),
        (Source.SEARCH, "sweep"),
        (Source.CREATE, "sweep"),
    ],
)
def test_who_told_first_of_an_end_is_counted(counted: Counted, source: Source, shown: str) -> None:
    submitting = generation(Stage.SUBMITTING, 1, attempt=1)

    counted.of.stepped(submitting, ARCHIVING, Submitted(1, ENDED, source))

    assert counted.shown("outcomes_total", source=shown) == 1


@pytest.mark.parametrize(
    ("after", "prediction"),
    [
        (RUNNING, Prediction("job", "processing")),
        (replace(RUNNING, progress_percent=50), ENDED),
        (replace(RUNNING, stage=Stage.CANCELING), Prediction("other", "failed")),
    ],
)
def test_what_is_no_end_or_another_s_is_not_counted_as_one(
    counted: Counted, after: Generation, prediction: Prediction
) -> None:
    before = replace(RUNNING, job_id="job")

    counted.of.stepped(before, after, PredictionSeen(prediction, Source.POLL))

    assert counted.shown("outcomes_total", source="poll") == 0


def test_a_step_that_leaves_the_stage_is_timed_and_another_is_not(counted: Counted) -> None:
    again = replace(RUNNING, failures=1)

    counted.of.stepped(RUNNING, again, EffectFailed(Stage.RUNNING, is_outage=True))

    assert counted.shown("stage_seconds_count", stage="RUNNING") == 0


def test_what_nobody_used_costs_without_being_charged(counted: Counted) -> None:
    counted.of.orphan_ended(REQUEST, ENDED)
    counted.of.orphan_ended(None, Prediction("never ran", "canceled"))

    assert counted.shown("orphans_charged_total") == 1
    assert counted.shown("provider_dollars_total", model="t2v-14B", charged="no") == 0.4


def test_a_model_that_is_no_longer_offered_is_another(counted: Counted) -> None:
    counted.of.orphan_ended(replace(REQUEST, model="a-forgotten-model"), ENDED)

    assert counted.shown("provider_seconds_total", model="other", charged="no") == 39
    assert counted.shown("provider_seconds_total", model="a-forgotten-model", charged="no") == 0


def test_an_estimate_is_held_against_the_end_and_few_are_remembered(counted: Counted) -> None:
    spread = Spread(p50_s=40, p90_s=60, p95_s=70)
    times = {("t2v-14B", "480p"): RunTimes(spread, spread, spread)}
    figures = OpenFigures(NOW, (), 0, 0, 0, is_paused=False)
    submitting = generation(Stage.SUBMITTING, 1, attempt=1)
    submitted = Submitted(1, Prediction("job", "starting"))
    counted.of.stands(figures, times)

    counted.of.stepped(submitting, RUNNING, submitted)
    counted.of.stepped(COMMITTING, COMPLETED, Committed())
    # The first is forgotten for the sake of those that come after.
    counted.of.stepped(submitting, RUNNING, submitted)
    for number in range(ESTIMATES_MAX):
        other = replace(RUNNING, generation_id=str(number))
        counted.of.stepped(submitting, other, submitted)
    counted.of.stepped(COMMITTING, COMPLETED, Committed())

    assert counted.shown("eta_hits_total", band="likely", hit="no") == 1
    assert counted.shown("eta_hits_total", band="latest", hit="yes") == 1


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        ("NSFW content detected", Fault.USER),
        ("Prediction interrupted; please retry (code: PA)", Fault.PROVIDER),
        ("CUDA out of memory", Fault.PROVIDER),
    ],
)
def test_a_refusal_for_safety_is_the_user_s_fault(error: str, fault: Fault) -> None:
    message = explain_failure(Prediction("job", "failed", error=error))

    assert fault_of(Failure(FailureCode.MODEL_FAILED, message)) is fault


def test_every_failure_is_somebody_s_fault() -> None:
    assert {code: fault_of(Failure(code, "")) for code in FailureCode} == {
        FailureCode.RESERVE_TIMEOUT: Fault.OURS,
        FailureCode.QUEUE_TIMEOUT: Fault.OURS,
        FailureCode.SUBMIT_UNCERTAIN: Fault.OURS,
        FailureCode.INPUT_REJECTED: Fault.USER,
        FailureCode.MODEL_FAILED: Fault.PROVIDER,
        FailureCode.MODEL_TIMED_OUT: Fault.PROVIDER,
        FailureCode.OUTPUT_LOST: Fault.OURS,
        FailureCode.INSUFFICIENT_CREDITS: Fault.USER,
        FailureCode.ACCOUNT_NOT_FOUND: Fault.USER,
        FailureCode.CANCELED: Fault.USER,
    }
