"""Random histories of a generation: whatever happens in whatever order, the promises hold."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random
from typing import get_args

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.generation.events import (
    CommitExpired,
    Committed,
    CreditsContradicted,
    EffectFailed,
    Event,
    OutputLost,
    OutputRenewed,
    OutputStored,
    PredictionMissing,
    PredictionSeen,
    Refunded,
    Reserved,
    ReserveRefused,
    SubmitClaimed,
    SubmitDeferred,
    SubmitRefused,
    Submitted,
    SubmitUnknown,
    Woken,
    is_plan,
)
from services.generation.prediction import Prediction
from services.generation.saga import begin, step
from services.generation.state import (
    FailureCode,
    Generation,
    Kind,
    Output,
    Request,
    Stage,
)
from services.generation.timing import Timing

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
TIMING = Timing(deadline_s=600, archive_limit_s=300)
GENERATION_ID = "4b7f6a52-5b05-4e1f-9d9c-2f60ff0c5a11"
PRICE = 20
REQUEST = Request(Kind.TEXT_TO_VIDEO, "t2v-14B", "720p", "a red fox runs through fresh snow")
SUCCESS = frozenset({Stage.COMMITTING, Stage.COMPLETED})
FAILURE = frozenset({Stage.REFUNDING, Stage.FAILED, Stage.REJECTED})

S = Stage
EDGES = {
    S.RESERVING: {S.READY, S.REJECTED, S.REFUNDING, S.PARKED},
    S.READY: {S.SUBMITTING, S.REFUNDING},
    # What was lost for a while may be found at any point of its life.
    S.SUBMITTING: {S.READY, S.RUNNING, S.CANCELING, S.ARCHIVING, S.REFUNDING},
    S.RUNNING: {S.CANCELING, S.ARCHIVING, S.REFUNDING, S.PARKED},
    S.CANCELING: {S.ARCHIVING, S.REFUNDING, S.PARKED},
    S.ARCHIVING: {S.COMMITTING, S.REFUNDING, S.PARKED},
    S.COMMITTING: {S.COMPLETED, S.PARKED},
    S.REFUNDING: {S.FAILED, S.PARKED},
    # Freed by the end of a prediction that was still being followed.
    S.PARKED: {S.ARCHIVING, S.REFUNDING},
}

ATTEMPTS = (1, 2)
JOB_IDS = ("job1", "job2")
VIDEO = "https://replicate.delivery/out.mp4"
PREDICTIONS = [
    Prediction(job_id, status, output_url=url, progress_percent=percent, data_removed=removed)
    for job_id in JOB_IDS
    for status, url, percent, removed in (
        ("starting", None, None, False),
        ("processing", None, 37, False),
        ("processing", None, 100, False),
        ("paused", None, None, False),
        ("succeeded", VIDEO, 100, False),
        ("succeeded", None, None, False),
        ("succeeded", None, None, True),
        ("failed", None, None, False),
        ("canceled", None, None, False),
        ("aborted", None, None, False),
    )
]
EVENTS: list[list[Event]] = [
    [Reserved(is_open=True), Reserved(is_open=False)],
    [ReserveRefused(FailureCode.INSUFFICIENT_CREDITS, 5)],
    [SubmitClaimed()],
    [Submitted(n, prediction) for n in ATTEMPTS for prediction in PREDICTIONS],
    [SubmitRefused(n, "must be set") for n in ATTEMPTS],
    [SubmitDeferred(n) for n in ATTEMPTS],
    [SubmitUnknown(n) for n in ATTEMPTS],
    [PredictionSeen(prediction) for prediction in PREDICTIONS],
    [PredictionMissing(job_id) for job_id in JOB_IDS],
    [OutputStored(job_id, Output("outputs/u/g.mp4", 1, "00")) for job_id in JOB_IDS],
    [OutputRenewed(job_id, "https://replicate.delivery/2") for job_id in JOB_IDS],
    [OutputLost(job_id, "no MP4") for job_id in JOB_IDS],
    [Committed()],
    [CommitExpired()],
    [Refunded()],
    [CreditsContradicted("ALREADY_REFUNDED")],
    [EffectFailed(stage, is_outage=True) for stage in EDGES],
    [Woken()],
]
STRAIGHT: list[Event] = [
    Reserved(),
    SubmitClaimed(),
    Submitted(1, PREDICTIONS[0]),
    PredictionSeen(Prediction("job1", "succeeded", output_url=VIDEO)),
    OutputStored("job1", Output("outputs/u/g.mp4", 1, "00")),
]
# Most random histories would end early, so they branch off from the way of a success.
MOVES = 30
WAITS_S = (0, 0, 0.001, 1, 30, 130, 301, 601)
SEEDS = st.integers(0, 2**32 - 1)
"""A history is drawn by a seed: lists that Hypothesis draws are too alike to go everywhere."""
RUNS = settings(
    max_examples=2_000,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def drawn(random: Random, stage: Stage, defects: float) -> Event:
    """Returns any event, or with a probability of `defects` a defect of the stage."""
    if random.random() < defects:
        return EffectFailed(stage, is_outage=False)
    if stage is Stage.PARKED:  # Else hardly any would be freed.
        return PredictionSeen(random.choice(PREDICTIONS))
    return random.choice(random.choice(EVENTS))


def has_happened(before: Generation, event: Event, after: Generation, now: datetime) -> None:
    """Checks what every single step promises."""
    if after is before:
        return
    assert not before.stage.is_final
    if before.stage is Stage.PARKED:
        assert isinstance(event, PredictionSeen)
        assert event.prediction.is_final
        assert before.parked_from in (Stage.RUNNING, Stage.CANCELING)
    assert after.fence == before.fence + 1
    assert after.version in (before.version, before.version + 1)
    assert (after.updated_at == now) or after.version == before.version
    if after.stage is not before.stage:
        assert after.stage in EDGES[before.stage], event
        assert after.version == before.version + 1
        assert (after.stage_since, after.failures, after.missing) == (now, 0, 0)
        if after.stage is Stage.PARKED:
            assert isinstance(event, EffectFailed | CreditsContradicted)
            assert not (isinstance(event, EffectFailed) and event.is_outage)
    assert before.job_id in (None, after.job_id)
    assert 0 <= before.progress_percent <= after.progress_percent <= 100
    assert before.attempt <= after.attempt <= before.attempt + 1
    kept = ("generation_id", "user_id", "request", "price_credits", "created_at", "deadline_at")
    assert all(getattr(before, name) == getattr(after, name) for name in kept)


def can_be(generation: Generation) -> None:
    """Checks what holds for a generation at every moment."""
    stage = generation.stage
    assert (generation.due_at is None) == (stage.is_final or stage is Stage.PARKED)
    assert (generation.finished_at is not None) == stage.is_final
    if stage in SUCCESS:
        assert generation.output is not None
        assert generation.failure is None
    if stage in FAILURE:
        assert generation.failure is not None
        assert generation.failure.message
    if stage in (Stage.RUNNING, Stage.CANCELING, Stage.ARCHIVING):
        assert generation.job_id is not None
        assert generation.submitted_at is not None
    if stage is Stage.ARCHIVING:
        assert generation.output_url is not None
        assert generation.provider_ended_at is not None
    if stage is not Stage.COMPLETED:
        assert generation.charged_credits == 0
        assert generation.progress_percent < 100 or stage is Stage.PARKED
    assert generation.charged_credits in (0, PRICE)


def is_repeated(after: Generation, event: Event, now: datetime) -> None:
    """Checks that the same fact, told twice, changes nothing more that anyone could see."""
    # Two answers that the prediction is missing are two facts; plans are void when told twice.
    if is_plan(event) or isinstance(event, PredictionMissing):
        return
    again = step(after, event, now, TIMING)
    if after.stage in (Stage.RUNNING, Stage.CANCELING, Stage.ARCHIVING):
        # A look sets the time of the next look.
        assert (again.stage, again.version, again.failure) == (
            after.stage,
            after.version,
            after.failure,
        )
    else:
        assert again is after


def test_no_order_of_events_breaks_a_promise() -> None:
    accepted: Counter[object] = Counter()

    @RUNS
    @given(SEEDS)
    def live(seed: int) -> None:
        random, now = Random(seed), BEGIN  # noqa: S311
        defects = random.choice((0.0, 0.1, 0.9))  # Only eight in a row are parked.
        generation = begin(GENERATION_ID, "u", REQUEST, PRICE, now, TIMING)
        # Most random histories would end early, so they branch off from the way of a success.
        for event in STRAIGHT[: random.randint(0, len(STRAIGHT))]:
            generation = step(generation, event, now, TIMING)
        visited = {generation.stage}
        for _ in range(MOVES):
            now += timedelta(seconds=random.choice(WAITS_S))
            event = drawn(random, generation.stage, defects)
            after = step(generation, event, now, TIMING)
            has_happened(generation, event, after, now)
            can_be(after)
            is_repeated(after, event, now)
            if after is not generation:
                accepted[type(event)] += 1
                accepted[generation.stage, after.stage] += 1
            generation = after
            visited.add(generation.stage)
        # Whoever is to be charged is never given it back, and the other way round.
        assert not (visited & SUCCESS and visited & FAILURE)

    live()

    assert {type(events[0]) for events in EVENTS} == set(get_args(Event))
    unseen = [event.__name__ for event in get_args(Event) if not accepted[event]]
    assert not unseen, accepted
    edges = {(before, after) for before, afters in EDGES.items() for after in afters}
    assert not {edge for edge in edges if not accepted[edge]}, accepted
    assert sum(accepted[event] for event in get_args(Event)) > 5_000


def test_a_generation_ends_by_its_deadline_when_nothing_but_time_passes() -> None:
    """Every stage that waits for the provider is left, though all its effects fail."""
    for first in (Woken(), SubmitUnknown(1), Submitted(1, Prediction("job1", "starting"))):
        now = BEGIN
        generation = begin(GENERATION_ID, "u", REQUEST, PRICE, now, TIMING)
        for event in (Reserved(), SubmitClaimed(), first):
            generation = step(generation, event, now, TIMING)
        steps = 0
        while generation.stage is not Stage.REFUNDING:
            assert generation.due_at is not None
            now, steps = max(now, generation.due_at), steps + 1
            failed = EffectFailed(generation.stage, is_outage=True)
            generation = step(generation, failed, now, TIMING)
            assert steps < 500
        assert now <= generation.deadline_at + timedelta(seconds=TIMING.cancel_limit_s)
