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
| RUNNING    | look at it          | ARCHIVING; REFUNDING if it failed; READY if the provider's  |
|            |                     | machines failed, once; CANCELING at the deadline            |
| CANCELING  | cancel, look at it  | REFUNDING; ARCHIVING if it succeeded all the same           |
| ARCHIVING  | copy the video      | COMMITTING; REFUNDING if the video is lost                  |
| COMMITTING | commit the price    | COMPLETED; CANCELED if it is what a cancel does not return  |
| REFUNDING  | refund the price    | FAILED; CANCELED if the user canceled                       |

The user's cancel leads from READY and from a submit of open outcome to REFUNDING, from RUNNING to
CANCELING, and is obeyed elsewhere when the call under way is answered.

A contrary answer of credits, an effect that fails eight times for no outage, or one that kills its
worker again and again leads to PARKED, where an operator looks at it and the price stays reserved.

What the provider says is in `following.py`, what several stages share in `moves.py`.
"""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import assert_never

from services.generation.cancellation import Verdict, judge_cancel, percent_of_cancel
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
    SubmitAbsent,
    SubmitClaimed,
    SubmitDeferred,
    SubmitRefused,
    Submitted,
    SubmitUnknown,
    Woken,
)
from services.generation.following import (
    archive_answered,
    look_again,
    prediction_missing,
    prediction_seen,
    save_again,
    submit_answered,
    submit_claimed,
)
from services.generation.moves import (
    after,
    back_off,
    backoff_s,
    make_ready,
    park,
    refund,
    uncertain,
)
from services.generation.state import Failure, FailureCode, Generation, Request, Stage
from services.generation.timing import Timing

__all__ = ["begin", "resumable", "step"]

DEFECTS_MAX = 8
"""An effect that fails so often in a row, and not for an outage, is parked."""

_RESERVE_TIMEOUT = "The credits could not be reserved in time. You were not charged; try again."
_GIVEN_UP = "It could not be finished. You were not charged; try again."
_REFUSALS = {
    FailureCode.INSUFFICIENT_CREDITS: "You have too few credits for this video.",
    FailureCode.ACCOUNT_NOT_FOUND: "You have no account yet.",
}


def begin(
    generation_id: str,
    user_id: str,
    request: Request,
    price_credits: int,
    now: datetime,
    timing: Timing,
    retry_of: str | None = None,
    traceparent: str | None = None,
) -> Generation:
    """Returns a new generation, already claimed by whoever creates it to reserve the price."""
    return Generation(
        generation_id=generation_id,
        user_id=user_id,
        request=request,
        price_credits=price_credits,
        stage=Stage.RESERVING,
        stage_since=now,
        due_at=after(now, timing.credits_lease_s),
        fence=1,
        created_at=now,
        deadline_at=after(now, timing.deadline_s),
        updated_at=now,
        retry_of=retry_of,
        traceparent=traceparent,
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
    return replace(changed, fence=generation.fence + 1, claims=0)


def resumable(generation: Generation) -> Collection[Stage]:
    """Returns the stages at which a parked generation can go on; none if it is not parked."""
    match generation.parked_from:
        case None:
            return ()
        case Stage.RESERVING:
            # Whether there is anything to give back, only the repeated Reserve can tell; it leads
            # to the refund by itself, since it took too long.
            return (Stage.RESERVING,)
        case Stage.REFUNDING if generation.output is not None:
            # If credits say that it was committed, there is a video to it.
            return (Stage.REFUNDING, Stage.COMMITTING)
        case parked_from:
            return tuple(dict.fromkeys((parked_from, Stage.REFUNDING)))


def _next(g: Generation, event: Event, now: datetime, timing: Timing) -> Generation:
    """Returns what `event` makes of the generation, before the bookkeeping of every change."""
    match event:
        case Reserved() | ReserveRefused():
            return _reserve_answered(g, event, now, timing)
        case SubmitClaimed():
            return submit_claimed(g, now, timing)
        case Submitted() | SubmitRefused() | SubmitDeferred() | SubmitUnknown() | SubmitAbsent():
            return submit_answered(g, event, now, timing)
        case PredictionSeen():
            return prediction_seen(g, event, now, timing)
        case PredictionMissing():
            return prediction_missing(g, event, now, timing)
        case OutputStored() | OutputRenewed() | OutputLost():
            return archive_answered(g, event, now, timing)
        case Committed() | CommitExpired() | Refunded() | CreditsContradicted():
            return _settled(g, event, now, timing)
        case CancelRequested():
            return _cancel_requested(g, event, now)
        case Deleted():
            return _deleted(g, now)
        case Resumed():
            return _resumed(g, event, now, timing)
        case EffectFailed():
            return _effect_failed(g, event, now, timing)
        case Poisoned():
            return (
                g if g.due_at is None else park(g, "it was begun again and again, and never ended")
            )
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
            late = now > after(g.created_at, timing.reserve_limit_s)
            if late or not is_open:
                return refund(g, FailureCode.RESERVE_TIMEOUT, _RESERVE_TIMEOUT, now)
            return make_ready(g, now, timing)
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


def _settled(
    g: Generation,
    event: Committed | CommitExpired | Refunded | CreditsContradicted,
    now: datetime,
    timing: Timing,
) -> Generation:
    # What has become of the money is so also for a generation that was parked meanwhile.
    stage = g.parked_from if g.stage is Stage.PARKED else g.stage
    match event:
        case CreditsContradicted(reason=reason):
            if g.stage not in (Stage.RESERVING, Stage.COMMITTING, Stage.REFUNDING):
                return g
            return park(g, f"credits answered {reason}")
        case Committed() | CommitExpired() if stage is Stage.COMMITTING:
            ended = replace(
                g,
                due_at=None,
                parked_from=None,
                park_reason=None,
                charged_credits=g.charge_credits if isinstance(event, Committed) else 0,
            )
            if g.refund_percent is not None:
                return replace(ended, stage=Stage.CANCELED)
            kept_s = timing.retention_s
            return replace(
                ended,
                stage=Stage.COMPLETED,
                progress_percent=100,
                erase_at=None if kept_s is None else after(now, kept_s),
            )
        case Refunded() if stage is Stage.REFUNDING:
            return replace(
                g,
                stage=Stage.FAILED if g.refund_percent is None else Stage.CANCELED,
                due_at=None,
                parked_from=None,
                park_reason=None,
                # A video that was copied, and then given up, is nobody's.
                erase_at=None if g.provider_ended_at is None else now,
            )
        case Committed() | CommitExpired() | Refunded():
            return g
        case unreachable:
            assert_never(unreachable)


def _cancel_requested(g: Generation, event: CancelRequested, now: datetime) -> Generation:
    if judge_cancel(g) is not Verdict.ACCEPTED:
        return g
    return _obeying(replace(g, refund_percent=percent_of_cancel(g, event.policy)), now)


def _obeying(g: Generation, now: datetime) -> Generation:
    """Returns a canceled generation where its cancel leads; a call under way is awaited first."""
    if g.stage is Stage.RUNNING:
        return replace(g, stage=Stage.CANCELING, due_at=now)
    if g.stage is Stage.READY or (g.stage is Stage.SUBMITTING and g.uncertain_since is not None):
        return refund(g, FailureCode.CANCELED, "", now)
    return g


def _deleted(g: Generation, now: datetime) -> Generation:
    if not g.stage.is_final or g.deleted_at is not None:
        return g
    # What was being copied may have left files, whatever came of it.
    has_files = g.provider_ended_at is not None and g.erased_at is None
    return replace(g, deleted_at=now, erase_at=now if has_files else None)


def _resumed(g: Generation, event: Resumed, now: datetime, timing: Timing) -> Generation:
    stage = event.stage or g.parked_from
    if g.stage is not Stage.PARKED or stage is None or stage not in resumable(g):
        return g
    resumed = replace(
        g, stage=stage, parked_from=None, park_reason=None, stage_since=now, due_at=now
    )
    match stage:
        case Stage.REFUNDING:
            return refund(resumed, FailureCode.MODEL_FAILED, _GIVEN_UP, now)
        case Stage.READY:
            return make_ready(resumed, now, timing)
        case Stage.SUBMITTING:
            return uncertain(resumed, now)
        case Stage.COMMITTING:
            return replace(resumed, failure=None) if g.refund_percent is None else resumed
        case _:
            return resumed if g.refund_percent is None else _obeying(resumed, now)


def _effect_failed(g: Generation, event: EffectFailed, now: datetime, timing: Timing) -> Generation:
    if g.stage is not event.stage:
        return g
    failed = g if event.is_outage else replace(g, defects=g.defects + 1)
    match g.stage:
        case Stage.READY | Stage.SUBMITTING:
            return _woken(g, now, timing)
        case Stage.PARKED | Stage.REJECTED | Stage.COMPLETED | Stage.FAILED | Stage.CANCELED:
            return g
        case _ if failed.defects >= DEFECTS_MAX:
            return park(failed, f"its effect failed {DEFECTS_MAX} times; the log says how")
        case Stage.RESERVING | Stage.COMMITTING | Stage.REFUNDING:
            return back_off(failed, now, timing)
        case Stage.RUNNING | Stage.CANCELING:
            again = replace(failed, failures=g.failures + 1)
            return look_again(again, max(timing.poll_s, backoff_s(g, timing)), now, timing)
        case Stage.ARCHIVING:
            return save_again(failed, now, timing)
        case unreachable:
            assert_never(unreachable)


def _woken(g: Generation, now: datetime, timing: Timing) -> Generation:
    match g.stage:
        case Stage.READY:
            return make_ready(g, now, timing)
        case Stage.SUBMITTING:
            # Whoever had the lease died with the answer; the prediction may exist.
            return uncertain(g, now)
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
            | Stage.CANCELED
        ):
            return g
        case unreachable:
            assert_never(unreachable)


def _visible(g: Generation) -> tuple[object, ...]:
    """Returns what a user can see and time can change."""
    return (
        g.stage,
        g.progress_percent,
        g.failure,
        g.job_id,
        g.attempt,
        g.refund_percent,
        g.charged_credits,
        g.submitted_at,
        g.started_at,
        g.erased_at,
        g.deleted_at,
    )
