"""The moves that several stages of the saga share: give back, wait, try again, stop."""

from dataclasses import replace
from datetime import datetime, timedelta
from zlib import crc32

from services.generation.state import Failure, FailureCode, Generation, Stage
from services.generation.timing import Timing

__all__ = [
    "CANCELED",
    "SUBMIT_UNCERTAIN",
    "after",
    "back_off",
    "backoff_s",
    "jitter",
    "make_ready",
    "park",
    "refund",
    "uncertain",
]

ATTEMPTS_MAX = 100
"""A generation whose submission was put off so often is refunded; addresses count to 999."""
MESSAGE_CHARACTERS_MAX = 500

_QUEUE_TIMEOUT = "It waited too long for its turn. You were not charged; try again."
SUBMIT_UNCERTAIN = "The provider did not confirm the job. You were not charged; try again."
CANCELED = Failure(FailureCode.CANCELED, "You canceled it.")


def refund(g: Generation, code: FailureCode, message: str, now: datetime) -> Generation:
    """Returns the generation about to give the whole price back."""
    if g.refund_percent is not None:
        # Whatever part a cancel would have kept: what did not come off is given back in full.
        return replace(g, stage=Stage.REFUNDING, due_at=now, failure=CANCELED, refund_percent=100)
    # What was decided first stands: a job canceled at its deadline timed out, however it ended.
    failure = g.failure or Failure(code, message[:MESSAGE_CHARACTERS_MAX])
    return replace(g, stage=Stage.REFUNDING, due_at=now, failure=failure)


def make_ready(g: Generation, now: datetime, timing: Timing, wait_s: float = 0.0) -> Generation:
    """Returns the generation waiting for a place at the provider, while there is time.

    It is not submitted before `wait_s` have passed.
    """
    latest = after(g.deadline_at, -timing.submit_margin_s)
    if g.refund_percent is not None or now >= latest or g.attempt >= ATTEMPTS_MAX:
        return refund(g, FailureCode.QUEUE_TIMEOUT, _QUEUE_TIMEOUT, now)
    not_before = after(now, wait_s) if wait_s else None
    return replace(g, stage=Stage.READY, due_at=latest, uncertain_since=None, not_before=not_before)


def uncertain(g: Generation, now: datetime) -> Generation:
    """Returns the generation waiting for its prediction to be found, and never submitted again."""
    if g.refund_percent is not None or now >= g.deadline_at:
        return refund(g, FailureCode.SUBMIT_UNCERTAIN, SUBMIT_UNCERTAIN, now)
    return replace(g, due_at=g.deadline_at, uncertain_since=g.uncertain_since or now)


def park(g: Generation, reason: str) -> Generation:
    """Returns the generation stopped, for an operator to look at."""
    return replace(g, stage=Stage.PARKED, parked_from=g.stage, park_reason=reason, due_at=None)


def back_off(g: Generation, now: datetime, timing: Timing) -> Generation:
    """Returns the generation about to try its effect again, the later the oftener it failed."""
    return replace(g, failures=g.failures + 1, due_at=after(now, backoff_s(g, timing)))


def backoff_s(g: Generation, timing: Timing) -> float:
    """Returns how long to wait before the effect is tried again."""
    # The exponent is bounded, or an outage of days would overflow the float.
    # A defect waits longer, so that eight of them, which park, are minutes and not seconds.
    doublings = max(g.failures, g.defects + 2 if g.defects else 0)
    wait_s: float = timing.backoff_min_s * 2 ** min(doublings, 16)
    return min(wait_s, timing.backoff_max_s) * jitter(g)


def jitter(g: Generation) -> float:
    """Returns a factor of 0.8 to 1.2 that differs between generations and between tries."""
    return 0.8 + 0.4 * (crc32(f"{g.generation_id}{g.fence}".encode()) % 1000) / 1000


def after(moment: datetime, seconds: float) -> datetime:
    """Returns the time `seconds` after a moment."""
    return moment + timedelta(seconds=seconds)
