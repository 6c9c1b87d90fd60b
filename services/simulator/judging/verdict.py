"""Finds every violation in the truth; pure."""

from dataclasses import dataclass

from services.simulator.judging.case import Truth, Violation, arrange
from services.simulator.judging.conduct import (
    asked_well,
    kept_limits,
    kept_the_token,
    let_the_ended_rest,
    polled_moderately,
)
from services.simulator.judging.outcomes import (
    canceled_what_was_not_used,
    charged_once,
    fetched_in_time,
    further_charges,
    waited_after_unknown,
)
from services.simulator.judging.terms import Terms

__all__ = ["Orphan", "Verdict", "judge"]

RULES = (
    charged_once,
    waited_after_unknown,
    fetched_in_time,
    canceled_what_was_not_used,
    kept_the_token,
    asked_well,
    kept_limits,
    polled_moderately,
    let_the_ended_rest,
)


@dataclass(frozen=True, slots=True)
class Orphan:
    """A charged prediction that nobody uses."""

    prediction: str
    group: str
    micro_usd: int
    """What it cost, in millionths of a dollar."""
    was_canceled: bool
    """Whether the customer sent a cancel, however late."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found."""

    violations: tuple[Violation, ...]
    """By rule, each by group in the order of their creates."""
    orphans: tuple[Orphan, ...]
    """What was charged beside what is used; no breach if it was canceled."""
    judged_predictions: int
    judged_requests: int
    missing_predictions: int = 0
    """Forgotten to bound memory; nothing is known about them."""
    missing_requests: int = 0
    """Likewise."""


def judge(truth: Truth, terms: Terms) -> Verdict:
    """Returns what `truth` proves against a customer who was to keep `terms`."""
    case = arrange(truth, terms)
    orphans = (
        Orphan(one.id, group, truth.charges[one.id].micro_usd, bool(case.cancels.get(one.id)))
        for group, mine in case.groups.items()
        for one in further_charges(case, mine)
    )
    return Verdict(
        violations=tuple(found for rule in RULES for found in rule(case)),
        orphans=tuple(orphans),
        judged_predictions=sum(len(mine) for mine in case.groups.values()),
        judged_requests=len(case.entries),
    )
