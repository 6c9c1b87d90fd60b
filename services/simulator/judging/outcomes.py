"""The rules about predictions: made once, found, canceled if not used, and their videos fetched."""

from collections.abc import Iterator, Sequence

from services.simulator.entries import Entry
from services.simulator.judging.case import Case, Violation, is_unknown, provider_time
from services.simulator.prediction import FINAL, Prediction, Status

__all__ = [
    "canceled_what_was_not_used",
    "charged_once",
    "fetched_in_time",
    "further_charges",
    "waited_after_unknown",
]

USABLE_OUTPUTS = (None, "list")
"""Shapes of an output that lead to a video."""
EARLY_EVENTS = frozenset({"start", "output", "logs"})
"""Webhooks that tell of a prediction before its end."""
HEARD = range(200, 300)


def charged_once(case: Case) -> Iterator[Violation]:
    """Rule 1: of each generation one prediction is charged, besides those that failed.

    A further one was canceled, or appeared too late and ended unnoticed; none is left alive.
    """
    for group, mine in case.groups.items():
        requests = _numbers(case.creates.get(group, ()))
        for one in further_charges(case, mine):
            excused = _came_late(case, one) and not _was_told(case, one)
            if not case.cancels.get(one.id) and not excused:
                dollars = case.truth.charges[one.id].micro_usd / 1e6
                proof = f"{one.id} was charged ${dollars:.4f} beside another, and never canceled"
                yield Violation(1, group, proof, tuple(p.id for p in mine), requests)
        for one in mine:
            if case.terms.is_over and one.status not in FINAL:
                proof = f"{one.id} was left {one.status}"
                yield Violation(1, group, proof, (one.id,), requests)


def further_charges(case: Case, mine: Sequence[Prediction]) -> list[Prediction]:
    """Returns the charged predictions of a group that it does not use and that did not fail."""
    kept = case.kept(mine)
    return [
        one
        for one in mine
        if one.id not in kept and case.truth.charges[one.id].is_charged and not _failed(one)
    ]


def waited_after_unknown(case: Case) -> Iterator[Violation]:
    """Rule 2: after a create of unknown outcome none follows before its grace time has passed.

    Unless the customer heard of what it made, and that had ended without success.
    """
    for group, creates in case.creates.items():
        for place, first in enumerate(creates):
            for second in creates[place + 1 :]:
                within = second.begun_at < first.begun_at + case.terms.grace_s
                is_open = second.begun_at < first.at or is_unknown(first)
                if within and is_open and not _settled(case, first, second.begun_at):
                    after_s = second.begun_at - first.begun_at
                    outcome = "no answer" if first.status is None else f"status {first.status}"
                    proof = (
                        f"a create {after_s:.3f} s after one that left open what came of it"
                        f" ({outcome}); {case.terms.grace_s:g} s had to pass"
                    )
                    made = tuple(p for p in (first.prediction, second.prediction) if p)
                    yield Violation(2, group, proof, made, (first.number, second.number))


def fetched_in_time(case: Case) -> Iterator[Violation]:
    """Rule 3: the video of what is used was fetched whole before its retention ended."""
    for group, mine in case.groups.items():
        kept = case.kept(mine)
        for one in mine:
            usable = one.status is Status.SUCCEEDED and one.plan.output in USABLE_OUTPUTS
            told = case.terms.adopted is not None or not case.cancels.get(one.id)
            if one.id in kept and usable and told:
                yield from _fetched_in_time(case, group, one)


def _fetched_in_time(case: Case, group: str, one: Prediction) -> Iterator[Violation]:
    assert one.completed_at is not None
    until = one.completed_at + case.truth.retention_s
    if one.fetched_at is not None and one.fetched_at <= until:
        return
    spoiled = [fetch for fetch in one.fetches if fetch.fault is not None]
    given_up = len(spoiled) == len(one.fetches) >= case.terms.fetch_tries_min
    taken_away = any(fetch.fault == "expire_now" for fetch in spoiled)
    if given_up or taken_away or (case.truth.now < until and not case.terms.is_over):
        return
    late_s = None if one.fetched_at is None else one.fetched_at - until
    when = "never fetched whole" if late_s is None else f"fetched whole {late_s:.1f} s too late"
    proof = f"the video of {one.id} was {when}, in {len(one.fetches)} tries"
    created = [case.create_of[one.id]] if one.id in case.create_of else []
    tried = [e for e in case.entries if e.listener == "delivery" and e.prediction == one.id]
    yield Violation(3, group, proof, (one.id,), _numbers([*created, *tried]))


def canceled_what_was_not_used(case: Case) -> Iterator[Violation]:
    """Rule 4: whatever is not used got a cancel if there was time, and nothing of others did."""
    for group, mine in case.groups.items():
        kept = case.kept(mine)
        for one in mine:
            idle = one.id not in kept and not _failed(one) and one.status is not Status.ABORTED
            over = one.status in FINAL or case.terms.is_over
            if idle and over and _was_told(case, one) and not case.cancels.get(one.id):
                proof = f"{one.id} was not used, known before its end, and never canceled"
                create = case.create_of.get(one.id)
                yield Violation(4, group, proof, (one.id,), _numbers([create] if create else []))
    ours = {one.id for mine in case.groups.values() for one in mine}
    for prediction_id, cancels in case.cancels.items():
        found = case.everything.get(prediction_id)
        if found is None:
            continue
        strange = [one for one in cancels if one.account != found.account]
        if prediction_id not in ours:
            strange = list(cancels)
        if strange:
            proof = f"a cancel of {prediction_id}, which belongs to another account or environment"
            yield Violation(4, found.group, proof, (prediction_id,), _numbers(strange))


def _failed(one: Prediction) -> bool:
    """Returns whether a prediction gave nothing of use, so that another may follow it."""
    useless = one.status is Status.SUCCEEDED and one.plan.output not in USABLE_OUTPUTS
    return one.status is Status.FAILED or useless


def _was_told(case: Case, one: Prediction) -> bool:
    """Returns whether the customer had heard of a prediction before its end."""
    if any(a.event in EARLY_EVENTS and a.status in HEARD for a in one.attempts):
        return True
    ended_at = one.completed_at
    return any(
        entry.status == 200 and (ended_at is None or provider_time(entry) < ended_at)
        for entry in case.reads.get(one.id, ())
    )


def _came_late(case: Case, one: Prediction) -> bool:
    """Returns whether a prediction appeared only after the grace time of its create."""
    create = case.create_of.get(one.id)
    if create is None:
        return False
    return one.created_at > provider_time(create) + case.terms.grace_s


def _settled(case: Case, create: Entry, moment: float) -> bool:
    """Returns whether the customer could know at `moment` that nothing comes of a create."""
    made = case.everything.get(create.prediction or "")
    if made is None or made.completed_at is None:
        return False
    ended = made.completed_at <= moment + create.jumped_s
    without_success = _failed(made) or made.status in (Status.CANCELED, Status.ABORTED)
    return ended and without_success and _heard_by(case, made, moment)


def _heard_by(case: Case, one: Prediction, moment: float) -> bool:
    """Returns whether a webhook, a read or a list had told of a prediction before `moment`."""
    if any(a.status in HEARD and a.at < moment for a in one.attempts):
        return True
    if any(e.status == 200 and e.at < moment for e in case.reads.get(one.id, ())):
        return True
    return any(
        entry.route == "/v1/predictions"
        and entry.method == "GET"
        and entry.status == 200
        and entry.account == one.account
        and provider_time(entry) > one.created_at
        and entry.at < moment
        for entry in case.entries
    )


def _numbers(entries: Sequence[Entry]) -> tuple[int, ...]:
    return tuple(entry.number for entry in entries)
