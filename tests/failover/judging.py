"""Says what became of acknowledged operations and how long callers waited, from values alone."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Acknowledged:
    """A movement of credits that somebody was told is made."""

    user_id: str
    key: str
    """By which the ledger makes it once."""
    type: str
    at: float
    """When it was told, in seconds since the epoch."""
    waited_s: float
    """Since it was first asked for."""
    tries: int
    was_replayed: bool
    """Whether an earlier try had made it, without an answer."""


@dataclass(frozen=True)
class Event:
    """Something that was done to the cluster."""

    name: str
    begun_at: float
    whole_at: float
    """When all nodes were there again."""


@dataclass(frozen=True)
class Outage:
    """How an event looked to those who write."""

    event: str
    lasted_s: float
    """From the last write that was acknowledged to the next one."""
    waited_s_max: float
    """The longest that somebody waited for an answer, repetitions included."""
    repeated: int
    """Operations that were asked for more than once."""
    replayed: int
    """Of those, the ones that a lost answer hid."""


def lost_of(
    acknowledged: Iterable[Acknowledged], transactions: Collection[tuple[str, str, str]]
) -> list[Acknowledged]:
    """Returns the operations that are not in the ledger; `transactions` are user, key and type."""
    return [one for one in acknowledged if (one.user_id, one.key, one.type) not in transactions]


def outages_of(events: Sequence[Event], acknowledged: Sequence[Acknowledged]) -> list[Outage]:
    """Returns how each event looked; the longest silence that touches it is its outage."""
    return [_outage_of(event, acknowledged) for event in events]


def _outage_of(event: Event, acknowledged: Sequence[Acknowledged]) -> Outage:
    moments = sorted(one.at for one in acknowledged)
    silences = [
        until - since
        for since, until in pairwise(moments)
        if until >= event.begun_at and since <= event.whole_at
    ]
    concerned = [
        one
        for one in acknowledged
        if one.at >= event.begun_at and one.at - one.waited_s <= event.whole_at
    ]
    repeated = [one for one in concerned if one.tries > 1]
    return Outage(
        event.name,
        # Nobody was ever answered again.
        max(silences, default=float("inf")),
        max((one.waited_s for one in concerned), default=float("inf")),
        len(repeated),
        sum(one.was_replayed for one in repeated),
    )
