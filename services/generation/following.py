"""What becomes of a generation by what the provider says: to its create, about its prediction.

Replicate's create has no idempotency key, so it is sent once. If its outcome is open, the
generation waits until the prediction is found, by a webhook or in the provider's list, or until it
is sure that there is none; only then, and only once, it is submitted again.
"""

from dataclasses import replace
from datetime import datetime
from typing import assert_never

from services.generation.events import (
    OutputLost,
    OutputRenewed,
    OutputStored,
    PredictionMissing,
    PredictionSeen,
    Source,
    SubmitAbsent,
    SubmitDeferred,
    SubmitRefused,
    Submitted,
    SubmitUnknown,
)
from services.generation.failures import explain_failure
from services.generation.moves import (
    CANCELED,
    SUBMIT_UNCERTAIN,
    after,
    back_off,
    jitter,
    make_ready,
    refund,
    uncertain,
)
from services.generation.prediction import Prediction, is_interruption
from services.generation.state import Failure, FailureCode, Generation, Stage
from services.generation.timing import Timing

__all__ = [
    "archive_answered",
    "look_again",
    "prediction_missing",
    "prediction_seen",
    "save_again",
    "submit_answered",
    "submit_claimed",
]

MISSING_MAX = 2
"""A prediction that the provider denies so often, a minute after its create, is gone."""
RESUBMISSIONS_MAX = 1
"""Whatever went wrong: more than one attempt that may cost money follows no other."""

_MODEL_TIMED_OUT = "The model took too long. You were not charged; try again."
_OUTPUT_REMOVED = "The video could not be saved in time. You were not charged; try again."
_PREDICTION_GONE = "The provider lost the job. You were not charged; try again."


def submit_claimed(g: Generation, now: datetime, timing: Timing) -> Generation:
    """A worker is about to submit it."""
    if g.stage is not Stage.READY:
        return g
    if now >= after(g.deadline_at, -timing.submit_margin_s):
        return make_ready(g, now, timing)  # Its time is up, whatever the worker thought.
    due_at = after(now, timing.provider_lease_s)
    return replace(g, stage=Stage.SUBMITTING, attempt=g.attempt + 1, due_at=due_at, not_before=None)


def submit_answered(
    g: Generation,
    event: Submitted | SubmitRefused | SubmitDeferred | SubmitUnknown | SubmitAbsent,
    now: datetime,
    timing: Timing,
) -> Generation:
    """The create of its present attempt has an outcome, or is known to have none yet."""
    if event.attempt != g.attempt:
        return g
    is_plan_or_doubt = isinstance(event, SubmitUnknown | SubmitAbsent)
    if g.stage is Stage.PARKED and g.parked_from is Stage.SUBMITTING and not is_plan_or_doubt:
        # What is known of the create frees what was parked before it was known.
        g = replace(g, stage=Stage.SUBMITTING, parked_from=None, park_reason=None)
    if g.stage is not Stage.SUBMITTING:
        return g
    match event:
        case Submitted(prediction=prediction, source=source):
            taken = replace(
                g,
                stage=Stage.RUNNING if g.refund_percent is None else Stage.CANCELING,
                # What counts from here on counts from now.
                stage_since=now,
                job_id=prediction.job_id,
                uncertain_since=None,
                submitted_at=now,
                due_at=now,
            )
            if taken.stage is Stage.CANCELING and not prediction.is_final:
                return replace(taken, provider_status=prediction.status)
            # The first news of a prediction may be its last: a webhook that found a lost create.
            return prediction_seen(taken, PredictionSeen(prediction, source), now, timing)
        case SubmitRefused(message=message):
            return refund(g, FailureCode.INPUT_REJECTED, message, now)
        case SubmitDeferred(wait_s=wait_s):
            return make_ready(g, now, timing, wait_s)
        case SubmitUnknown():
            return uncertain(g, now)
        case SubmitAbsent():
            if g.uncertain_since is None:
                return g
            if g.resubmissions >= RESUBMISSIONS_MAX:
                return refund(g, FailureCode.SUBMIT_UNCERTAIN, SUBMIT_UNCERTAIN, now)
            again = make_ready(g, now, timing)
            # Without the time for another attempt there is none to count.
            is_counted = again.stage is Stage.READY
            return replace(again, resubmissions=g.resubmissions + is_counted)
        case unreachable:
            assert_never(unreachable)


def prediction_seen(
    g: Generation, event: PredictionSeen, now: datetime, timing: Timing
) -> Generation:
    """The provider said something about a prediction."""
    prediction = event.prediction
    if g.job_id != prediction.job_id:
        return g
    followed = g.parked_from if g.stage is Stage.PARKED else g.stage
    if followed not in (Stage.RUNNING, Stage.CANCELING):
        return g
    if prediction.is_final:
        if prediction.status == "succeeded" and _is_doubtful(event):
            return replace(g, due_at=now) if g.stage is not Stage.PARKED else g
        # The end is news also to a generation that was parked because looking kept failing.
        followed_on = replace(g, stage=followed, parked_from=None, park_reason=None)
        return _prediction_ended(followed_on, prediction, now, timing)
    if g.stage is Stage.PARKED:
        return g
    seen = replace(
        g,
        # Webhooks come late and out of order, so what is known to run does not go back to starting.
        provider_status=(
            g.provider_status if g.provider_status == "processing" else prediction.status
        ),
        progress_percent=max(g.progress_percent, min(prediction.progress_percent or 0, 99)),
        started_at=g.started_at or prediction.started_at,
        missing=0,
        failures=0,
        defects=0,
    )
    if seen.started_at is None and prediction.is_processing:
        seen = replace(seen, started_at=now)
    return look_again(seen, max(timing.poll_s, event.poll_after_s) * jitter(g), now, timing)


def prediction_missing(
    g: Generation, event: PredictionMissing, now: datetime, timing: Timing
) -> Generation:
    """The provider does not know the prediction."""
    if g.stage not in (Stage.RUNNING, Stage.CANCELING) or g.job_id != event.job_id:
        return g
    settled = after(g.submitted_at or g.stage_since, timing.missing_grace_s)
    missing = g.missing + 1 if now >= settled else 0
    if missing >= MISSING_MAX:
        return refund(g, FailureCode.OUTPUT_LOST, _PREDICTION_GONE, now)
    return look_again(replace(g, missing=missing), timing.poll_s, now, timing)


def look_again(g: Generation, wait_s: float, now: datetime, timing: Timing) -> Generation:
    """Sets when to look at a prediction again, or ends the waiting at the deadline."""
    if g.stage is Stage.CANCELING:
        limit = after(g.stage_since, timing.cancel_limit_s)
        if now >= limit:
            return refund(g, FailureCode.MODEL_TIMED_OUT, _MODEL_TIMED_OUT, now)
        return replace(g, due_at=min(after(now, wait_s), limit))
    if now >= g.deadline_at:
        failure = Failure(FailureCode.MODEL_TIMED_OUT, _MODEL_TIMED_OUT)
        return replace(g, stage=Stage.CANCELING, due_at=now, failure=failure)
    return replace(g, due_at=min(after(now, wait_s), g.deadline_at))


def archive_answered(
    g: Generation, event: OutputStored | OutputRenewed | OutputLost, now: datetime, timing: Timing
) -> Generation:
    """The copying of the video has an outcome."""
    if g.stage is not Stage.ARCHIVING or g.job_id != event.job_id:
        return g
    match event:
        case OutputStored(output=output):
            return replace(g, stage=Stage.COMMITTING, due_at=now, output=output)
        case OutputRenewed(output_url=output_url):
            return save_again(replace(g, output_url=output_url), now, timing)
        case OutputLost(message=message):
            return refund(g, FailureCode.OUTPUT_LOST, message, now)
        case unreachable:
            assert_never(unreachable)


def save_again(g: Generation, now: datetime, timing: Timing) -> Generation:
    """Tries again to save the video for as long as the provider keeps it."""
    if now >= after(g.provider_ended_at or g.stage_since, timing.archive_limit_s):
        return refund(g, FailureCode.OUTPUT_LOST, _OUTPUT_REMOVED, now)
    return back_off(g, now, timing)


def _is_doubtful(event: PredictionSeen) -> bool:
    """Tells whether a success without a video should be asked for once more, at its source."""
    return event.prediction.output_url is None and event.source is not Source.POLL


def _prediction_ended(
    g: Generation, prediction: Prediction, now: datetime, timing: Timing
) -> Generation:
    ended = replace(
        g,
        provider_status=prediction.status,
        started_at=g.started_at or prediction.started_at,
    )
    if prediction.status == "succeeded":
        return _succeeded(ended, prediction, now)
    if prediction.status == "canceled" and g.refund_percent is not None and g.charge_credits:
        # The user canceled what ran, by rules that keep a part of the price.
        return replace(ended, stage=Stage.COMMITTING, due_at=now, failure=CANCELED)
    has_time = now < after(g.deadline_at, -timing.submit_margin_s)
    is_first = g.resubmissions < RESUBMISSIONS_MAX
    if g.stage is Stage.RUNNING and is_interruption(prediction) and is_first and has_time:
        return make_ready(_given_up(ended), now, timing)
    return refund(ended, FailureCode.MODEL_FAILED, explain_failure(prediction), now)


def _succeeded(g: Generation, prediction: Prediction, now: datetime) -> Generation:
    if prediction.output_url is None:
        if prediction.data_removed:
            return refund(g, FailureCode.OUTPUT_LOST, _OUTPUT_REMOVED, now)
        return refund(g, FailureCode.MODEL_FAILED, explain_failure(prediction), now)
    # The video exists, so it is saved and paid, even if we had given up waiting for it, and even if
    # the user's cancel came too late.
    return replace(
        g,
        stage=Stage.ARCHIVING,
        due_at=now,
        output_url=prediction.output_url,
        provider_ended_at=now,
        failure=None,
        refund_percent=None,
    )


def _given_up(g: Generation) -> Generation:
    """Returns the generation without the prediction that failed, for another one to be made."""
    return replace(
        g,
        resubmissions=g.resubmissions + 1,
        job_id=None,
        provider_status=None,
        progress_percent=0,
        submitted_at=None,
        started_at=None,
    )
