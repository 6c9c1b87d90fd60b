"""The truth, arranged for its rules; pure."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from services.simulator.entries import Entry
from services.simulator.judging.terms import Terms
from services.simulator.ledger import Charge
from services.simulator.prediction import Prediction, Status

__all__ = ["Case", "Truth", "Violation", "arrange", "is_unknown", "provider_time"]

REFUSALS = frozenset({400, 401, 402, 403, 404, 405, 413, 415, 422, 429})
"""Answers to a create after which it is sure that nothing came of it, in Replicate's own shape."""
SPOILED = frozenset({"malformed_json", "empty_200", "huge_headers", "slow_bytes"})
"""Faults after which a create that was answered with success may not have been understood."""
RANKS = {
    Status.SUCCEEDED: 0,
    Status.PROCESSING: 1,
    Status.STARTING: 1,
    Status.CANCELED: 2,
    Status.FAILED: 3,
    Status.ABORTED: 3,
}
"""Which of several predictions seems to be the one that is used: the first with the least."""


@dataclass(frozen=True, slots=True)
class Truth:
    """All that is known."""

    predictions: Sequence[Prediction]
    entries: Sequence[Entry]
    charges: Mapping[str, Charge]
    """By prediction."""
    now: float
    """By the provider's clock."""
    retention_s: float


@dataclass(frozen=True, slots=True)
class Violation:
    """One breach of a rule."""

    rule: int
    """1 to 9."""
    group: str
    """Whose work it is about; empty if it is about none in particular."""
    proof: str
    """What happened, in words."""
    predictions: tuple[str, ...] = ()
    requests: tuple[int, ...] = ()
    """Numbers of the journal's entries that prove it."""

    def __str__(self) -> str:
        return f"{self.rule}: {self.group or '-'}: {self.proof}"


@dataclass(frozen=True)
class Case:
    """The part of the truth that is to be judged, by what belongs together."""

    terms: Terms
    truth: Truth
    everything: Mapping[str, Prediction]
    """All predictions by id, also those of others."""
    groups: Mapping[str, Sequence[Prediction]]
    """The customer's predictions, oldest first; one that nothing groups stands for itself."""
    entries: Sequence[Entry]
    """The customer's requests, in the order in which they began."""
    creates: Mapping[str, Sequence[Entry]]
    """Its creates by group."""
    reads: Mapping[str, Sequence[Entry]]
    """Its reads by prediction."""
    cancels: Mapping[str, Sequence[Entry]]
    """Its cancels by prediction."""
    create_of: Mapping[str, Entry]
    """The create that made a prediction."""
    others: Collection[int]
    """Numbers of the creates of other environments."""

    def kept(self, mine: Sequence[Prediction]) -> Collection[str]:
        """Returns which of a group's predictions the customer uses, as told or as it seems."""
        if self.terms.adopted is not None:
            return {one.id for one in mine if one.id in self.terms.adopted}
        return {min(mine, key=lambda one: (one.fetched_at is None, RANKS[one.status])).id}


def arrange(truth: Truth, terms: Terms) -> Case:
    """Returns the case that is to be judged."""
    everything = {one.id: one for one in truth.predictions}
    groups: dict[str, list[Prediction]] = defaultdict(list)
    for one in sorted(truth.predictions, key=lambda one: one.created_at):
        if _is_judged(one.account, one.webhook, terms):
            groups[one.group or one.id].append(one)
    entries = sorted(
        (one for one in truth.entries if terms.account in (None, one.account) or not one.account),
        key=lambda one: one.begun_at,
    )
    creates: dict[str, list[Entry]] = defaultdict(list)
    reads: dict[str, list[Entry]] = defaultdict(list)
    cancels: dict[str, list[Entry]] = defaultdict(list)
    create_of: dict[str, Entry] = {}
    others: set[int] = set()
    for entry in entries:
        _, _, rest = entry.route.partition("/v1/predictions/")
        if entry.is_create:
            if entry.prediction is not None:
                create_of[entry.prediction] = entry
            asked = entry.asked
            group = None if asked is None else asked.group or entry.prediction
            webhook = None if asked is None else asked.webhook
            if not _is_judged(entry.account, webhook, terms):
                others.add(entry.number)
            elif group:
                creates[group].append(entry)
        elif entry.listener == "api" and entry.method == "POST" and rest.endswith("/cancel"):
            cancels[rest.removesuffix("/cancel")].append(entry)
        elif entry.listener == "api" and entry.method == "GET" and rest:
            reads[rest].append(entry)
    return Case(
        terms, truth, everything, groups, entries, creates, reads, cancels, create_of, others
    )


def is_unknown(create: Entry) -> bool:
    """Returns whether the answer to a create left open what came of it."""
    if create.status is None:
        return True
    if 200 <= create.status < 300:
        return create.fault in SPOILED
    return create.status not in REFUSALS or create.content_type != "application/json"


def provider_time(entry: Entry) -> float:
    """Returns when a request began by the provider's clock, which predictions live by."""
    return entry.begun_at + entry.jumped_s


def _is_judged(account: str | None, webhook: str | None, terms: Terms) -> bool:
    if terms.account not in (None, account):
        return False
    elsewhere = webhook is not None and not webhook.startswith(terms.webhook_address or "")
    return not elsewhere
