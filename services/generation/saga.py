"""Decides what becomes of a generation: `step(generation, event, now, timing)` returns it anew.

The row is the saga: `stage` says what to do next, `due_at` when, `fence` who may plan. A stage's
effect is done by a worker, and its outcome comes back as an event. A late or repeated event, or one
about another prediction or attempt, changes nothing and returns the same object.

| stage      | its effect          | leads to                                                    |
|------------|---------------------|-------------------------------------------------------------|
| RESERVING  | reserve the price   | READY; REJECTED if refused; REFUNDING if it took too long   |
| READY      | none: waits         | SUBMITTING; REFUNDING if too little time is left            |
| SUBMITTING | create a prediction | RUNNING; READY if nothing was created; REFUNDING if refused |
|            |                     | or if the outcome is still open at the deadline             |
| RUNNING    | look at it          | ARCHIVING; REFUNDING if it failed; CANCELING at the deadline|
| CANCELING  | cancel, look at it  | REFUNDING; ARCHIVING if it succeeded all the same           |
| ARCHIVING  | copy the video      | COMMITTING; REFUNDING if the video is lost                  |
| COMMITTING | commit the price    | COMPLETED                                                   |
| REFUNDING  | refund the price    | FAILED                                                      |

A contrary answer of credits, or an effect that fails eight times for no outage, leads to PARKED,
where an operator looks at it and the price stays reserved.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import assert_never
from zlib import crc32

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
)
from services.generation.prediction import Prediction
from services.generation.state import Failure, FailureCode, Generation, Request, Stage
from services.generation.timing import Timing

__all__ = ["begin", "step"]

DEFECTS_MAX = 8
"""An effect that fails so often in a row, and not for an outage, is parked."""
MISSING_MAX = 2
"""A prediction that the provider denies so often, a minute after its create, is gone."""
ATTEMPTS_MAX = 100
"""A generation whose submission was put off so often is refunded; addresses count to 999."""
MESSAGE_CHARACTERS_MAX = 500


def begin(
    generation_id: str,
    user_id: str,
    request: Request,
    price_credits: int,
    now: datetime,
    timing: Timing,
) -> Generation:
    """Returns a new generation, already claimed by whoever creates it to reserve the price."""
    return Generation(
        generation_id=generation_id,
        user_id=user_id,
        request=request,
        price_credits=price_credits,
        stage=Stage.RESERVING,
        stage_since=now,
        due_at=_after(now, timing.credits_lease_s),
        fence=1,
        created_at=now,
        deadline_at=_after(now, timing.deadline_s),
        updated_at=now,
    )


def step(generation: Generation, event: Event, now: datetime, timing: Timing) -> Generation:
    """Returns the generation after `event`; the same object if nothing changes."""
    changed = _next(generation, event, now, timing)
    if changed == generation:
        return generation
    if changed.stage is not generation.stage:
        changed = replace(
            changed,
            stage_since=now,
            failures=0,
            defects=0,
            missing=0,
            finished_at=now if changed.stage.is_final else None,
        )
    if _visible(changed) != _visible(generation):
        changed = replace(changed, version=generation.version + 1, updated_at=now)
    return replace(changed, fence=generation.fence + 1)


def _next(g: Generation, event: Event, now: datetime, timing: Timing) -> Generation:
    """Returns what `event` makes of the generation, before the bookkeeping of every change."""
    match event:
        case Reserved() | ReserveRefused():
            return _reserve_answered(g, event, now, timing)
        case SubmitClaimed():
            return _submit_claimed(g, now, timing)
        case Submitted() | SubmitRefused() | SubmitDeferred() | SubmitUnknown():
            return _submit_answered(g, event, now, timing)
        case PredictionSeen():
            return _prediction_seen(g, event.prediction, event.poll_after_s, now, timing)
        case PredictionMissing():
            return _prediction_missing(g, event, now, timing)
        case OutputStored() | OutputRenewed() | OutputLost():
            return _archive_answered(g, event, now, timing)
        case Committed() | CommitExpired():
            if g.stage is not Stage.COMMITTING:
                return g
            charged = g.price_credits if isinstance(event, Committed) else 0
            return replace(
                g,
                stage=Stage.COMPLETED,
                due_at=None,
                charged_credits=charged,
                progress_percent=100,
            )
        case Refunded():
            if g.stage is not Stage.REFUNDING:
                return g
            return replace(g, stage=Stage.FAILED, due_at=None)
        case CreditsContradicted():
            if g.stage not in (Stage.RESERVING, Stage.COMMITTING, Stage.REFUNDING):
                return g
            return _park(g)
        case EffectFailed():
            return _effect_failed(g, event, now, timing)
        case Woken():
            return _woken(g, now, timing)
        case unreachable:
            assert_never(unreachable)


def _reserve_answered(
    g: Generation, event: Reserved | ReserveRefused, now: datetime, timing: Timing
) -> Generation:
    if g.stage is not Stage.RESERVING:
        return g
    match event:
        case Reserved(is_open=is_open):
            late = now > _after(g.created_at, timing.reserve_limit_s)
            if late or not is_open:
                return _refund(g, FailureCode.RESERVE_TIMEOUT, _RESERVE_TIMEOUT, now)
            return _ready(g, now, timing)
        case ReserveRefused(code=code, available=available):
            failure = Failure(code, _REFUSALS[code])
            return replace(
                g,
                stage=Stage.REJECTED,
                due_at=None,
                failure=failure,
                rejected_available=available,
            )
        case unreachable:
            assert_never(unreachable)


def _submit_claimed(g: Generation, now: datetime, timing: Timing) -> Generation:
    if g.stage is not Stage.READY:
        return g
    due_at = _after(now, timing.provider_lease_s)
    return replace(g, stage=Stage.SUBMITTING, attempt=g.attempt + 1, due_at=due_at)


def _submit_answered(
    g: Generation,
    event: Submitted | SubmitRefused | SubmitDeferred | SubmitUnknown,
    now: datetime,
    timing: Timing,
) -> Generation:
    if g.stage is not Stage.SUBMITTING or event.attempt != g.attempt:
        return g
    match event:
        case Submitted(prediction=prediction):
            running = replace(
                g, stage=Stage.RUNNING, job_id=prediction.job_id, submitted_at=now, due_at=now
            )
            # The first news of a prediction may be its last: a webhook that found a lost create.
            return _prediction_seen(running, prediction, 0.0, now, timing)
        case SubmitRefused(message=message):
            return _refund(g, FailureCode.INPUT_REJECTED, message, now)
        case SubmitDeferred():
            return _ready(g, now, timing)
        case SubmitUnknown():
            return _uncertain(g, now)
        case unreachable:
            assert_never(unreachable)


def _ready(g: Generation, now: datetime, timing: Timing) -> Generation:
    """Lets it wait for a place at the provider while there is time."""
    latest = g.deadline_at - timedelta(seconds=timing.submit_margin_s)
    if now >= latest or g.attempt >= ATTEMPTS_MAX:
        return _refund(g, FailureCode.QUEUE_TIMEOUT, _QUEUE_TIMEOUT, now)
    return replace(g, stage=Stage.READY, due_at=latest)


def _uncertain(g: Generation, now: datetime) -> Generation:
    """Waits for a webhook to tell of the prediction; never submits again."""
    if now >= g.deadline_at:
        return _refund(g, FailureCode.SUBMIT_UNCERTAIN, _SUBMIT_UNCERTAIN, now)
    return replace(g, due_at=g.deadline_at)


def _prediction_seen(
    g: Generation, prediction: Prediction, poll_after_s: float, now: datetime, timing: Timing
) -> Generation:
    if g.job_id != prediction.job_id:
        return g
    followed = g.parked_from if g.stage is Stage.PARKED else g.stage
    if followed not in (Stage.RUNNING, Stage.CANCELING):
        return g
    if prediction.is_final:
        # The end is news also to a generation that was parked because looking kept failing.
        return _prediction_ended(replace(g, parked_from=None), prediction, now)
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
    return _look_again(seen, max(timing.poll_s, poll_after_s) * _jitter(g), now, timing)


def _prediction_ended(g: Generation, prediction: Prediction, now: datetime) -> Generation:
    ended = replace(
        g,
        provider_status=prediction.status,
        started_at=g.started_at or prediction.started_at,
    )
    if prediction.status == "succeeded":
        if prediction.output_url is None:
            if prediction.data_removed:
                return _refund(ended, FailureCode.OUTPUT_LOST, _OUTPUT_REMOVED, now)
            return _refund(ended, FailureCode.MODEL_FAILED, _NO_OUTPUT, now)
        # The video exists, so it is saved and paid, even if we had given up waiting for it.
        return replace(
            ended,
            stage=Stage.ARCHIVING,
            due_at=now,
            output_url=prediction.output_url,
            provider_ended_at=now,
            failure=None,
        )
    message = prediction.error or _ENDED.get(prediction.status, _NO_OUTPUT)
    return _refund(ended, FailureCode.MODEL_FAILED, message, now)


def _prediction_missing(
    g: Generation, event: PredictionMissing, now: datetime, timing: Timing
) -> Generation:
    if g.stage not in (Stage.RUNNING, Stage.CANCELING) or g.job_id != event.job_id:
        return g
    settled = _after(g.submitted_at or g.stage_since, timing.missing_grace_s)
    missing = g.missing + 1 if now >= settled else 0
    if missing >= MISSING_MAX:
        return _refund(g, FailureCode.OUTPUT_LOST, _PREDICTION_GONE, now)
    return _look_again(replace(g, missing=missing), timing.poll_s, now, timing)


def _look_again(g: Generation, wait_s: float, now: datetime, timing: Timing) -> Generation:
    """Sets when to look at a prediction again, or ends the waiting at the deadline."""
    if g.stage is Stage.CANCELING:
        limit = _after(g.stage_since, timing.cancel_limit_s)
        if now >= limit:
            return replace(g, stage=Stage.REFUNDING, due_at=now)
        return replace(g, due_at=min(_after(now, wait_s), limit))
    if now >= g.deadline_at:
        failure = Failure(FailureCode.MODEL_TIMED_OUT, _MODEL_TIMED_OUT)
        return replace(g, stage=Stage.CANCELING, due_at=now, failure=failure)
    return replace(g, due_at=min(_after(now, wait_s), g.deadline_at))


def _archive_answered(
    g: Generation, event: OutputStored | OutputRenewed | OutputLost, now: datetime, timing: Timing
) -> Generation:
    if g.stage is not Stage.ARCHIVING or g.job_id != event.job_id:
        return g
    match event:
        case OutputStored(output=output):
            return replace(g, stage=Stage.COMMITTING, due_at=now, output=output)
        case OutputRenewed(output_url=output_url):
            return _save_again(replace(g, output_url=output_url), now, timing)
        case OutputLost(message=message):
            return _refund(g, FailureCode.OUTPUT_LOST, message, now)
        case unreachable:
            assert_never(unreachable)


def _effect_failed(g: Generation, event: EffectFailed, now: datetime, timing: Timing) -> Generation:
    if g.stage is not event.stage:
        return g
    failed = g if event.is_outage else replace(g, defects=g.defects + 1)
    match g.stage:
        case Stage.READY | Stage.SUBMITTING:
            return _woken(g, now, timing)
        case Stage.PARKED | Stage.REJECTED | Stage.COMPLETED | Stage.FAILED:
            return g
        case _ if failed.defects >= DEFECTS_MAX:
            return _park(failed)
        case Stage.RESERVING | Stage.COMMITTING | Stage.REFUNDING:
            return _back_off(failed, now, timing)
        case Stage.RUNNING | Stage.CANCELING:
            again = replace(failed, failures=g.failures + 1)
            return _look_again(again, max(timing.poll_s, _backoff_s(g, timing)), now, timing)
        case Stage.ARCHIVING:
            return _save_again(failed, now, timing)
        case unreachable:
            assert_never(unreachable)


def _save_again(g: Generation, now: datetime, timing: Timing) -> Generation:
    """Tries again to save the video for as long as the provider keeps it."""
    if now >= _after(g.provider_ended_at or g.stage_since, timing.archive_limit_s):
        return _refund(g, FailureCode.OUTPUT_LOST, _OUTPUT_REMOVED, now)
    return _back_off(g, now, timing)


def _woken(g: Generation, now: datetime, timing: Timing) -> Generation:
    match g.stage:
        case Stage.READY:
            return _ready(g, now, timing)
        case Stage.SUBMITTING:
            # Whoever had the lease died with the answer; the prediction may exist.
            return _uncertain(g, now)
        case (
            Stage.RESERVING
            | Stage.RUNNING
            | Stage.CANCELING
            | Stage.ARCHIVING
            | Stage.COMMITTING
            | Stage.REFUNDING
            | Stage.PARKED
            | Stage.REJECTED
            | Stage.COMPLETED
            | Stage.FAILED
        ):
            return g
        case unreachable:
            assert_never(unreachable)


def _refund(g: Generation, code: FailureCode, message: str, now: datetime) -> Generation:
    # What was decided first stands: a job canceled at its deadline timed out, however it ended.
    failure = g.failure or Failure(code, message[:MESSAGE_CHARACTERS_MAX])
    return replace(g, stage=Stage.REFUNDING, due_at=now, failure=failure)


def _park(g: Generation) -> Generation:
    return replace(g, stage=Stage.PARKED, parked_from=g.stage, due_at=None)


def _back_off(g: Generation, now: datetime, timing: Timing) -> Generation:
    return replace(g, failures=g.failures + 1, due_at=_after(now, _backoff_s(g, timing)))


def _backoff_s(g: Generation, timing: Timing) -> float:
    # The exponent is bounded, or an outage of days would overflow the float.
    # A defect waits longer, so that eight of them, which park, are minutes and not seconds.
    doublings = max(g.failures, g.defects + 2 if g.defects else 0)
    backoff_s: float = timing.backoff_min_s * 2 ** min(doublings, 16)
    return min(backoff_s, timing.backoff_max_s) * _jitter(g)


def _jitter(g: Generation) -> float:
    """Returns a factor of 0.8 to 1.2 that differs between generations and between tries."""
    return 0.8 + 0.4 * (crc32(f"{g.generation_id}{g.fence}".encode()) % 1000) / 1000


def _after(moment: datetime, seconds: float) -> datetime:
    return moment + timedelta(seconds=seconds)


def _visible(g: Generation) -> tuple[object, ...]:
    """Returns what a user can see and time can change."""
    return (
        g.stage,
        g.progress_percent,
        g.failure,
        g.job_id,
        g.attempt,
        g.charged_credits,
        g.submitted_at,
        g.started_at,
    )


_RESERVE_TIMEOUT = "The credits could not be reserved in time. You were not charged; try again."
_QUEUE_TIMEOUT = "It waited too long for its turn. You were not charged; try again."
_SUBMIT_UNCERTAIN = "The provider did not confirm the job. You were not charged; try again."
_MODEL_TIMED_OUT = "The model took too long. You were not charged; try again."
_NO_OUTPUT = "The model made no video. You were not charged; try again."
_OUTPUT_REMOVED = "The video could not be saved in time. You were not charged; try again."
_PREDICTION_GONE = "The provider lost the job. You were not charged; try again."
_ENDED = {
    "canceled": "The provider stopped the job. You were not charged; try again.",
    "aborted": "The provider never started the job. You were not charged; try again.",
}
_REFUSALS = {
    FailureCode.INSUFFICIENT_CREDITS: "You have too few credits for this video.",
    FailureCode.ACCOUNT_NOT_FOUND: "You have no account yet.",
}
