"""What comes of an event, by what its body and its address say."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from services.generation.deliveries import Disposition, Ruling, rule
from services.generation.events import PredictionSeen, Source, Submitted
from services.generation.prediction import Prediction
from services.generation.state import Generation, Kind, Request, Stage

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
SUBMITTING = Generation(
    generation_id="4b7f6a52-5b05-4e1f-9d9c-2f60ff0c5a11",
    user_id="u",
    request=Request(Kind.TEXT_TO_VIDEO, "t2v-14B", "720p", "a red fox runs through snow"),
    price_credits=20,
    stage=Stage.SUBMITTING,
    stage_since=NOW,
    due_at=NOW,
    fence=3,
    created_at=NOW,
    deadline_at=NOW,
    updated_at=NOW,
    attempt=2,
)
RUNNING = replace(SUBMITTING, stage=Stage.RUNNING, job_id="job1")
JOB1 = Prediction("job1", "processing", input={"seed": 7})
ORPHAN = Ruling(None, Disposition.ORPHAN)


def test_what_is_no_prediction_is_filed_as_unreadable() -> None:
    for generation in (None, SUBMITTING):
        ruling = rule(None, generation, 2, is_booked=False, attempt_seed=7)

        assert ruling == Ruling(None, Disposition.UNREADABLE)


def test_an_unknown_prediction_at_an_unproven_address_is_never_touched() -> None:
    ruling = rule(JOB1, None, 0, is_booked=False, attempt_seed=None)

    assert ruling == Ruling(None, Disposition.UNMATCHED)


@pytest.mark.parametrize("stage", [Stage.RUNNING, Stage.CANCELING, Stage.COMPLETED, Stage.FAILED])
@pytest.mark.parametrize("attempt", [0, 1, 2])
def test_the_prediction_in_use_is_told_to_the_saga_whatever_the_address_says(
    stage: Stage, attempt: int
) -> None:
    ruling = rule(JOB1, replace(RUNNING, stage=stage), attempt, is_booked=True, attempt_seed=None)

    assert ruling == Ruling(PredictionSeen(JOB1, Source.WEBHOOK), Disposition.STALE)


@pytest.mark.parametrize("generation", [SUBMITTING, replace(RUNNING, job_id="job0")])
def test_a_booked_prediction_that_is_not_in_use_is_never_adopted(generation: Generation) -> None:
    ruling = rule(JOB1, generation, 2, is_booked=True, attempt_seed=7)

    assert ruling == Ruling(None, Disposition.STALE)


@pytest.mark.parametrize("seed", [7, None])
def test_the_attempt_that_waits_adopts_its_prediction(seed: int | None) -> None:
    prediction = replace(JOB1, input={} if seed is None else {"seed": seed})

    ruling = rule(prediction, SUBMITTING, 2, is_booked=False, attempt_seed=7)

    assert ruling == Ruling(Submitted(2, prediction, Source.WEBHOOK), Disposition.ORPHAN)


@pytest.mark.parametrize("attempt_seed", [8, None])
def test_a_prediction_with_another_seed_is_not_adopted(attempt_seed: int | None) -> None:
    assert rule(JOB1, SUBMITTING, 2, is_booked=False, attempt_seed=attempt_seed) == ORPHAN


@pytest.mark.parametrize("attempt", [1, 3])
def test_another_attempt_adopts_nothing(attempt: int) -> None:
    assert rule(JOB1, SUBMITTING, attempt, is_booked=False, attempt_seed=7) == ORPHAN


@pytest.mark.parametrize("stage", [stage for stage in Stage if stage is not Stage.SUBMITTING])
def test_a_generation_that_does_not_wait_adopts_nothing(stage: Stage) -> None:
    generation = replace(SUBMITTING, stage=stage)

    assert rule(JOB1, generation, 2, is_booked=False, attempt_seed=7) == ORPHAN
