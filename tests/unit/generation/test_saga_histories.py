"""Random histories of a generation: whatever happens in whatever order, the promises hold."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import get_args

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
TIMING = Timing(deadline_s=600, archive_limit_s=300, retention_s=86_400)
GENERATION_ID = "4b7f6a52-5b05-4e1f-9d9c-2f60ff0c5a11"
PRICE = 20
REQUEST = Request(Kind.TEXT_TO_VIDEO, "t2v-14B", "720p", "a red fox runs through fresh snow")

S = Stage
EDGES = {
    S.RESERVING: {S.READY, S.REJECTED, S.REFUNDING, S.PARKED},
    S.READY: {S.SUBMITTING, S.REFUNDING, S.PARKED},
    # What was lost for a while may be found at any point of its life.
    S.SUBMITTING: {S.READY, S.RUNNING, S.CANCELING, S.ARCHIVING, S.REFUNDING, S.PARKED},
    # Back to READY only once, when the provider's machines failed.
    S.RUNNING: {S.READY, S.CANCELING, S.ARCHIVING, S.COMMITTING, S.REFUNDING, S.PARKED},
    # To COMMITTING when a cancel keeps a part of the price.
    S.CANCELING: {S.ARCHIVING, S.COMMITTING, S.REFUNDING, S.PARKED},
    S.ARCHIVING: {S.COMMITTING, S.REFUNDING, S.PARKED},
    S.COMMITTING: {S.COMPLETED, S.CANCELED, S.PARKED},
    S.REFUNDING: {S.FAILED, S.CANCELED, S.PARKED},
    # Freed by an operator, by the end of a prediction that was still being followed, or by news of
    # what has become of the money.
    S.PARKED: {
        S.RESERVING,
        S.READY,
        S.SUBMITTING,
        S.RUNNING,
        S.CANCELING,
        S.ARCHIVING,
        S.COMMITTING,
        S.REFUNDING,
        S.COMPLETED,
        S.FAILED,
        S.CANCELED,
    },
}
EDGES[S.RUNNING].discard(S.COMMITTING)  # Only a cancel leads there, and it goes by CANCELING.

ATTEMPTS = (1, 2)
JOB_IDS = ("job1", "job2")
VIDEO = "https://replicate.delivery/out.mp4"
PREDICTIONS = [
    Prediction(job_id, status, output_url=url, progress_percent=percent, data_removed=removed)
    if status != "interrupted"
    else Prediction(job_id, "failed", error="Prediction interrupted; please retry (code: PA)")
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
        ("interrupted", None, None, False),
        ("canceled", None, None, False),
        ("aborted", None, None, False),
    )
]
EVENTS: list[list[Event]] = [
    [Reserved(is_open=True), Reserved(is_open=False)],
    [ReserveRefused(FailureCode.INSUFFICIENT_CREDITS, 5)],
    [SubmitClaimed()],
    [
        Submitted(n, prediction, source)
        for n in ATTEMPTS
        for prediction in PREDICTIONS
        for source in (Source.CREATE, Source.WEBHOOK, Source.SEARCH)
    ],
    [SubmitRefused(n, "must be set") for n in ATTEMPTS],
    [SubmitDeferred(n) for n in ATTEMPTS],
    [SubmitUnknown(n) for n in ATTEMPTS],
    [SubmitAbsent(n) for n in ATTEMPTS],
    [
        PredictionSeen(prediction, source)
        for prediction in PREDICTIONS
        for source in (Source.POLL, Source.WEBHOOK)
    ],
    [PredictionMissing(job_id) for job_id in JOB_IDS],
    [OutputStored(job_id, Output("outputs/u/g.mp4", 1, "00")) for job_id in JOB_IDS],
    [OutputRenewed(job_id, "https://replicate.delivery/2") for job_id in JOB_IDS],
    [OutputLost(job_id, "no MP4") for job_id in JOB_IDS],
    [Committed()],
    [CommitExpired()],
    [Refunded()],
    [CreditsContradicted("CALLER_NOT_ALLOWED")],
    [CancelRequested(CancelPolicy()), CancelRequested(CancelPolicy(100, 50, 0))],
    [Deleted()],
    [Resumed(stage) for stage in (None, *Stage)],
    [EffectFailed(stage, is_outage=True) for stage in EDGES],
    [Poisoned()],
    [Woken()],
]
STRAIGHT: list[Event] = [
    Reserved(),
    SubmitClaimed(),
    Submitted(1, PREDICTIONS[0]),
    PredictionSeen(Prediction("job1", "succeeded", output_url=VIDEO)),
    OutputStored("job1", Output("outputs/u/g.mp4", 1, "00")),
]
CANCELED: list[Event] = [
    *STRAIGHT[:2],
    Submitted(1, PREDICTIONS[1]),
    CancelRequested(CancelPolicy(100, 50, 25)),
    PredictionSeen(Prediction("job1", "canceled")),
]
INTERRUPTED: list[Event] = [
    *STRAIGHT[:3],
    PredictionSeen(Prediction("job1", "failed", error="E6716")),
    SubmitClaimed(),
    Submitted(2, PREDICTIONS[11]),
]
# Most random histories would end early, so they branch off from these ways.
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


class Ledger:
    """The reservation at the credits service, which settles it once and says so ever after."""

    def __init__(self) -> None:
        self.spent: int | None = None
        """None while the reservation is open; 0 once it was refunded."""
        self.refunded = False

    def settle(self, generation: Generation) -> Event:
        """Does the effect of a stage that moves money, and returns the answer."""
        if generation.stage is Stage.COMMITTING:
            if self.refunded or self.spent not in (None, generation.charge_credits):
                return CreditsContradicted("ALREADY_REFUNDED")
            self.spent = generation.charge_credits
            return Committed()
        if self.spent is not None:
            return CreditsContradicted("ALREADY_COMMITTED")
        self.refunded = True
        return Refunded()


def drawn(random: Random, generation: Generation, defects: float, ledger: Ledger) -> Event:
    """Returns any event, or with a probability of `defects` a defect of the stage.

    What credits answers is true, and an answer that is lost was one.
    """
    stage = generation.stage
    settled: Event | None = None
    if stage in (Stage.COMMITTING, Stage.REFUNDING) and random.random() < 0.5:
        settled = ledger.settle(generation)
    if random.random() < defects:
        return EffectFailed(stage, is_outage=False)
    if settled is not None and random.random() < 0.5:
        return settled
    if stage is Stage.PARKED and random.random() < 0.7:  # Else hardly any would be freed.
        if generation.parked_from in (Stage.COMMITTING, Stage.REFUNDING) and random.random() < 0.3:
            # The answer to an effect that was begun before it was parked.
            return ledger.settle(replace(generation, stage=generation.parked_from))
        if random.random() < 0.5:
            return PredictionSeen(random.choice(PREDICTIONS))
        return Resumed(random.choice([None, Stage.REFUNDING, Stage.COMMITTING]))
    event = random.choice(random.choice(EVENTS))
    if isinstance(event, CommitExpired):
        # Only of a reservation that nobody settled, and then it is given back.
        if ledger.spent is not None or stage is not Stage.COMMITTING:
            return Woken()
        ledger.refunded = True
    if isinstance(event, Committed) and ledger.spent is None:
        return Woken()
    if isinstance(event, Refunded) and not ledger.refunded:
        return Woken()
    return event


def has_happened(before: Generation, event: Event, after: Generation, now: datetime) -> None:
    """Checks what every single step promises."""
    if after is before:
        return
    if before.stage.is_final:
        assert isinstance(event, Deleted)
        assert after.stage is before.stage
    assert after.fence == before.fence + 1
    assert after.version in (before.version, before.version + 1)
    assert (after.updated_at == now) or after.version == before.version
    if after.stage is not before.stage:
        assert after.stage in EDGES[before.stage], event
        assert after.version == before.version + 1
        assert (after.stage_since, after.failures, after.missing) == (now, 0, 0)
        if after.stage is Stage.PARKED:
            assert isinstance(event, EffectFailed | CreditsContradicted | Poisoned)
            assert not (isinstance(event, EffectFailed) and event.is_outage)
            assert after.park_reason
    is_resubmitted = after.resubmissions > before.resubmissions
    if is_resubmitted:
        assert after.stage in (Stage.READY, Stage.REFUNDING)
        assert after.resubmissions == 1
    elif before.job_id is not None:
        assert after.job_id == before.job_id
        assert before.progress_percent <= after.progress_percent
    assert 0 <= after.progress_percent <= 100
    assert before.attempt <= after.attempt <= before.attempt + 1
    kept = ("generation_id", "user_id", "request", "price_credits", "created_at", "deadline_at")
    assert all(getattr(before, name) == getattr(after, name) for name in kept)


def can_be(generation: Generation) -> None:
    """Checks what holds for a generation at every moment."""
    stage = generation.stage
    assert (generation.due_at is None) == (stage.is_final or stage is Stage.PARKED)
    assert (generation.finished_at is not None) == stage.is_final
    assert (generation.parked_from is not None) == (stage is Stage.PARKED)
    if stage is Stage.COMPLETED or (stage is Stage.COMMITTING and not generation.refund_percent):
        assert generation.output is not None or generation.refund_percent == 0
    if stage is Stage.COMPLETED:
        assert generation.failure is None
        assert generation.refund_percent is None
        assert generation.erase_at is not None
    if stage in (Stage.REFUNDING, Stage.FAILED, Stage.REJECTED, Stage.CANCELED):
        assert generation.failure is not None
        assert generation.failure.message
    if stage is Stage.CANCELED:
        assert generation.refund_percent is not None
        assert generation.failure is not None
        assert generation.failure.code is FailureCode.CANCELED
    if stage in (Stage.RUNNING, Stage.CANCELING, Stage.ARCHIVING):
        assert generation.job_id is not None
        assert generation.submitted_at is not None
    if stage is Stage.ARCHIVING:
        assert generation.output_url is not None
        assert generation.provider_ended_at is not None
    if stage not in (Stage.COMPLETED, Stage.CANCELED):
        assert generation.charged_credits == 0
    if stage is not Stage.COMPLETED:
        assert generation.progress_percent < 100


def is_settled(generation: Generation, ledger: Ledger) -> None:
    """Checks that the end that a user sees is what the ledger says."""
    match generation.stage:
        case Stage.COMPLETED:
            assert (ledger.spent or 0) == generation.charged_credits
        case Stage.CANCELED:
            assert (ledger.spent or 0) == generation.charged_credits
            assert ledger.refunded == (generation.charged_credits == 0) or ledger.spent == 0
        case Stage.FAILED:
            assert ledger.refunded
            assert ledger.spent is None
        case _:
            pass


def is_repeated(after: Generation, event: Event, now: datetime) -> None:
    """Checks that the same fact, told twice, changes nothing more that anyone could see."""
    # Two answers that the prediction is missing are two facts; plans are void when told twice.
    if is_plan(event) or isinstance(event, PredictionMissing | Resumed):
        return
    again = step(after, event, now, TIMING)
    if isinstance(event, SubmitUnknown):
        assert again.stage is after.stage
    elif after.stage in (Stage.RUNNING, Stage.CANCELING, Stage.ARCHIVING):
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
        way = random.choice((STRAIGHT, STRAIGHT, STRAIGHT, CANCELED, INTERRUPTED))
        ledger, first = Ledger(), iter(way[: random.randint(0, len(way))])
        for _ in range(MOVES):
            event = next(first, None)
            if event is None:
                now += timedelta(seconds=random.choice(WAITS_S))
                event = drawn(random, generation, defects, ledger)
            after = step(generation, event, now, TIMING)
            has_happened(generation, event, after, now)
            can_be(after)
            is_repeated(after, event, now)
            if after is not generation:
                accepted[type(event)] += 1
                accepted[generation.stage, after.stage] += 1
            generation = after
            is_settled(generation, ledger)

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
