"""What a prediction is, and what happens to it when; pure."""

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, assert_never

from services.simulator.plan import Ending, Plan

__all__ = [
    "EVENTS",
    "FAILURE_SHARE",
    "FINAL",
    "Attempt",
    "Fetch",
    "Prediction",
    "Status",
    "Step",
    "as_of",
    "finish",
    "is_charged",
    "loaded_prediction",
    "next_step",
    "remove_data",
    "run_elapsed_s",
    "start",
    "with_attempt",
    "with_fetch",
]

TIME_LIMIT_S = 30 * 60.0
"""Seconds of running, at speed 1, after which Replicate gives a prediction up."""
FAILURE_SHARE = 0.4
"""Share of its run after which a prediction that is to fail fails, or one that sticks sticks."""
ATTEMPTS_KEPT = 64
FETCHES_KEPT = 64
REQUEST_KEPT_CHARACTERS = 4096
"""How much of a create's body is remembered when its data goes: the whole, but for large images."""

FAILURE_ERROR = "Prediction failed: the model ran out of memory (code: E1001)"
UNSAFE_ERROR = (
    "NSFW content detected. Try running it again, or try a different prompt. (code: E005)"
)
TIME_LIMIT_ERROR = "Prediction timed out: it ran for more than 30 minutes"


class Status(StrEnum):
    """The words of Replicate."""

    STARTING = "starting"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    ABORTED = "aborted"


EVENTS = ("start", "output", "logs", "completed")
"""What a webhook can be sent for."""

FINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELED, Status.ABORTED})


class Step(StrEnum):
    """What comes next in a prediction's life."""

    START = "start"
    SUCCEED = "succeed"
    FAIL = "fail"
    REFUSE = "refuse"
    TIME_OUT = "time_out"
    ABORT = "abort"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to deliver a webhook."""

    event: str
    webhook_id: str
    at: float
    """When it was sent, in seconds since the epoch."""
    status: int | None
    """HTTP status of the answer; None if there was none."""
    failure: str | None
    """Why there was no answer."""
    fault: str | None = None
    """Kind of the fault that fired at it."""
    ended_at: float | None = None
    """When it was answered, or given up."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """One time that the video was asked for; times are the provider's, in seconds since the epoch.

    What was handed to the network counts as fetched.
    """

    begun_at: float
    ended_at: float
    status: int | None
    """None if the connection ended before the answer did."""
    first_byte: int
    end_byte: int
    """One behind the last byte of the video that was given as it is; like the first if none was."""
    size_bytes: int
    """Of the whole video; 0 if there was none."""
    is_whole: bool
    """Whether this answer alone was the whole video."""
    fault: str | None = None
    """Kind of the fault that spoiled it."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One prediction; all times are seconds since the epoch."""

    id: str
    account: str
    number: int
    """Place among the predictions of its account: 1, 2, 3 …"""
    model: str
    version_id: str
    """Which version runs."""
    shown_version: str
    """What the API says about it: `hidden` if it was asked for by the model's name."""
    input: dict[str, Any]
    request: str
    """Body of the create request, as it came; after retention its first 4,096 characters."""
    prefer: str | None
    """The `Prefer` header of the create request."""
    webhook: str | None
    events: frozenset[str]
    """Events that a webhook is sent for."""
    created_at: float
    deadline: float | None
    """When `Cancel-After` ends it."""
    plan: Plan
    request_path: str = ""
    """Path and query of the create request."""
    request_headers: tuple[tuple[str, str], ...] = ()
    """Its header lines, with the account's name in place of the token."""
    group: str = ""
    """What the customer works on, as far as the request tells; empty if it does not."""
    deployment: str | None = None
    """`owner/name` of the deployment that runs it."""
    output_s: float = 0.0
    """Seconds of video that it makes if it succeeds."""
    status: Status = Status.STARTING
    started_at: float | None = None
    completed_at: float | None = None
    predict_s: float | None = None
    """Seconds of running at speed 1, once it has ended."""
    error: str | None = None
    data_removed: bool = False
    settled: bool = False
    """Whether nothing is left to be sent to the webhook."""
    attempts: tuple[Attempt, ...] = field(default=())
    """The webhooks sent so far, at most the latest 64."""
    fetches: tuple[Fetch, ...] = ()
    """When the video was asked for so far, at most the latest 64."""
    fetched_at: float | None = None
    """When the last byte of the whole video had been given for the first time."""

    @property
    def read_created_at(self) -> float:
        """Returns the `created_at` that reads show, which differs from the create answer's."""
        # In whole microseconds, as it is shown: a list filtered by what was shown must hold it.
        return round(self.created_at + self.plan.jitter_s, 6)


def next_step(prediction: Prediction, speed: float) -> tuple[float, Step]:
    """Returns what happens next to an unfinished prediction if nobody interferes, and when."""
    match prediction.status:
        case Status.STARTING:
            at = prediction.created_at + prediction.plan.boot_s / speed
            if prediction.plan.ending is Ending.STUCK_STARTING:
                at = math.inf
            step = Step.ABORT if prediction.plan.ending is Ending.ABORT else Step.START
            expired = Step.ABORT
        case Status.PROCESSING:
            assert prediction.started_at is not None
            duration_s, step = _end_of_run(prediction.plan)
            at = prediction.started_at + duration_s / speed
            expired = Step.CANCEL
        case Status.SUCCEEDED | Status.FAILED | Status.CANCELED | Status.ABORTED:
            raise AssertionError("a finished prediction has no next step")
        case _:
            assert_never(prediction.status)
    if prediction.deadline is not None and prediction.deadline <= at:
        return prediction.deadline, expired
    return at, step


def run_elapsed_s(prediction: Prediction, now: float, speed: float) -> float:
    """Returns for how long a prediction has been running, in seconds at speed 1."""
    if prediction.predict_s is not None:
        return prediction.predict_s
    if prediction.started_at is None:
        return 0.0
    # Making the video can take longer than a very fast run should; the log does not tell.
    return min((now - prediction.started_at) * speed, _end_of_run(prediction.plan)[0])


def start(prediction: Prediction, now: float) -> Prediction:
    """Returns the prediction after the model began to run."""
    assert prediction.status is Status.STARTING
    return replace(prediction, status=Status.PROCESSING, started_at=now)


def finish(
    prediction: Prediction, step: Step, now: float, speed: float, error: str | None = None
) -> Prediction:
    """Returns the prediction after the final `step`; `error` replaces a failure's usual text."""
    assert prediction.status not in FINAL
    match step:
        case Step.SUCCEED:
            status = Status.SUCCEEDED
        case Step.FAIL:
            status, error = Status.FAILED, error or prediction.plan.error or FAILURE_ERROR
        case Step.REFUSE:
            status, error = Status.FAILED, UNSAFE_ERROR
        case Step.TIME_OUT:
            status, error = Status.FAILED, TIME_LIMIT_ERROR
        case Step.ABORT:
            status = Status.ABORTED
        case Step.CANCEL:
            status = Status.CANCELED
        case Step.START:
            raise AssertionError("starting ends nothing")
        case _:
            assert_never(step)
    return replace(
        prediction,
        status=status,
        completed_at=now,
        predict_s=run_elapsed_s(prediction, now, speed) if prediction.started_at else None,
        error=error,
    )


def as_of(prediction: Prediction, moment: float) -> Prediction | None:
    """Returns the prediction as it was at `moment`; None if it was not there yet."""
    if moment < prediction.created_at:
        return None
    if prediction.completed_at is not None and moment < prediction.completed_at:
        running = prediction.started_at is not None
        status = Status.PROCESSING if running else Status.STARTING
        prediction = replace(
            prediction, status=status, completed_at=None, predict_s=None, error=None
        )
    if prediction.started_at is not None and moment < prediction.started_at:
        prediction = replace(prediction, status=Status.STARTING, started_at=None)
    return prediction


def is_charged(prediction: Prediction, failed: bool, canceled_before_start: bool) -> bool:
    """Returns whether a prediction costs something; the two flags decide what nobody knows."""
    match prediction.status:
        case Status.STARTING | Status.PROCESSING | Status.ABORTED:
            return False
        case Status.SUCCEEDED:
            return True
        case Status.FAILED:
            return failed
        case Status.CANCELED:
            return prediction.started_at is not None or canceled_before_start
        case _:
            assert_never(prediction.status)


def remove_data(prediction: Prediction) -> Prediction:
    """Returns what is left of a finished prediction after its retention."""
    assert prediction.status in FINAL
    request = prediction.request[:REQUEST_KEPT_CHARACTERS]
    return replace(prediction, input={}, request=request, data_removed=True)


def loaded_prediction(document: dict[str, Any]) -> Prediction:
    """Returns the prediction that a stored document describes."""
    values = dict(document)
    values["plan"] = Plan(**values["plan"])
    values["status"] = Status(values["status"])
    values["events"] = frozenset(values["events"])
    values["attempts"] = tuple(Attempt(**attempt) for attempt in values["attempts"])
    values["fetches"] = tuple(Fetch(**fetch) for fetch in values.get("fetches", ()))
    headers = values.get("request_headers", ())
    values["request_headers"] = tuple((name, value) for name, value in headers)
    return Prediction(**values)


def with_attempt(prediction: Prediction, attempt: Attempt, settled: bool) -> Prediction:
    """Returns the prediction with one more webhook attempt on record."""
    return replace(
        prediction,
        attempts=(*prediction.attempts, attempt)[-ATTEMPTS_KEPT:],
        settled=prediction.settled or settled,
    )


def with_fetch(prediction: Prediction, fetch: Fetch) -> Prediction:
    """Returns the prediction with one more fetch of its video on record."""
    fetches = (*prediction.fetches, fetch)[-FETCHES_KEPT:]
    fetched_at = prediction.fetched_at
    if fetched_at is None and fetch.size_bytes and _covered(fetches) >= fetch.size_bytes:
        fetched_at = fetch.ended_at
    return replace(prediction, fetches=fetches, fetched_at=fetched_at)


def _covered(fetches: tuple[Fetch, ...]) -> int:
    """Returns how many bytes from the first one on were given, in whatever parts."""
    covered = 0
    for fetch in sorted(fetches, key=lambda one: one.first_byte):
        if fetch.first_byte <= covered:
            covered = max(covered, fetch.end_byte)
    return covered


def _end_of_run(plan: Plan) -> tuple[float, Step]:
    """Returns after how many seconds of running, at speed 1, which step ends a run."""
    match plan.ending:
        case Ending.SUCCESS | Ending.ABORT:
            duration_s, step = plan.run_s, Step.SUCCEED
        case Ending.UNSAFE:
            duration_s, step = plan.run_s, Step.REFUSE
        case Ending.FAILURE:
            duration_s, step = plan.run_s * FAILURE_SHARE, Step.FAIL
        # What never starts never comes here.
        case Ending.STUCK | Ending.STUCK_STARTING:
            duration_s, step = TIME_LIMIT_S, Step.TIME_OUT
        case _:
            assert_never(plan.ending)
    return (TIME_LIMIT_S, Step.TIME_OUT) if duration_s > TIME_LIMIT_S else (duration_s, step)
