"""Decides which prediction of the provider's list is the one that a lost create made.

The provider keeps no id of ours, but echoes the address that it reports to, which names generation
and attempt, and the input, which has a seed of its own for every attempt. Neither the model nor the
times of an item can be relied on.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from services.generation.prediction import Prediction
from services.generation.timing import Timing

__all__ = ["LOOK_BACK", "Listed", "Lost", "Searched", "is_absent", "match", "next_search"]

LOOK_BACK = timedelta(seconds=130)
"""How long before a create was claimed the search of the list begins: clocks differ."""
CLEAN_SEARCHES_MIN = 2
_UPLOADED = "upload:"


@dataclass(frozen=True, slots=True)
class Lost:
    """An attempt of which it is open whether it made a prediction."""

    generation_id: str
    attempt: int
    input: Mapping[str, Any]
    """What was sent."""
    send_before: datetime
    settled_at: datetime
    """When it was lost."""
    searches: int = 0
    """How often it was looked for."""
    clean_searches: int = 0
    """How many complete searches in a row have not found it."""


@dataclass(frozen=True, slots=True)
class Listed:
    """What the provider's list says, newest first."""

    predictions: Sequence[Prediction]
    reaches_back_to: datetime | None
    """When the oldest of them was made; None if nothing older was left out."""
    is_readable: bool = True
    """Whether all of it could be read."""

    def covers(self, lost: Lost) -> bool:
        """Tells whether a prediction that `lost` made would be in it, and be recognized."""
        back_to = self.reaches_back_to
        return self.is_readable and (back_to is None or back_to <= lost.send_before - LOOK_BACK)


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search found for one attempt."""

    lost: Lost
    found: Prediction | None
    """The oldest match."""
    others: tuple[Prediction, ...] = ()
    """Further matches, which nobody will use."""
    is_blocked: bool = False
    """Whether a candidate may be this attempt's or another's, so that nothing is proved."""


def match(
    attempts: Sequence[Lost],
    listed: Iterable[Prediction],
    known: Collection[str],
    rivals: Iterable[Mapping[str, Any]],
    proven: Callable[[str], tuple[str, int] | None],
) -> list[Searched]:
    """Returns what the provider's list, newest first, says about each lost attempt.

    `known` are the ids that are booked already, for whichever generation; `rivals` are the inputs
    of attempts whose creates are under way. `proven` returns the generation and the attempt that a
    query of ours names. By its address an item is one attempt's for certain; where none is echoed,
    its input tells, if no other attempt sent the same.
    """
    candidates = [item for item in listed if item.job_id not in known]
    sent = Counter(_key(input_) for input_ in (*(lost.input for lost in attempts), *rivals))
    searched = []
    for lost in attempts:
        certain, likely = [], []
        for item in candidates:
            owner = None if item.callback_query is None else proven(item.callback_query)
            if owner == (lost.generation_id, lost.attempt):
                certain.append(item)
            elif item.callback_query is None and _has_input(item, lost.input):
                likely.append(item)
        ambiguous = sent[_key(lost.input)] > 1
        matches = certain or ([] if ambiguous else likely)
        searched.append(
            Searched(
                lost,
                # The list is newest first; of two, the older is ours and the newer a double.
                found=matches[-1] if matches else None,
                others=tuple(matches[:-1]),
                is_blocked=bool(likely) and not matches,
            )
        )
    return searched


def is_absent(
    searched: Searched, *, complete: bool, begun_at: datetime, timing: Timing
) -> tuple[bool, int]:
    """Returns whether an attempt made no prediction, and its number of clean searches in a row.

    Two complete searches in a row must have found nothing, the later begun when everything that was
    sent must have become visible.
    """
    if searched.found is not None or searched.is_blocked or not complete:
        return False, 0
    clean = searched.lost.clean_searches + 1
    # A create that began to be sent at the last moment may have taken as long as a call may.
    visible_s = timing.provider_call_s + timing.search_grace_s
    late_enough = begun_at >= searched.lost.send_before + timedelta(seconds=visible_s)
    return late_enough and clean >= CLEAN_SEARCHES_MIN, clean


def next_search(lost: Lost, now: datetime, timing: Timing) -> datetime | None:
    """Returns when to look for an attempt after `lost.searches` searches; None = no more."""
    delays = timing.search_delays_s
    if now >= lost.settled_at + timedelta(seconds=timing.search_limit_s):
        return None
    if lost.searches < len(delays):
        return max(lost.settled_at + timedelta(seconds=delays[lost.searches]), now)
    return now + timedelta(seconds=delays[-1])


def _has_input(item: Prediction, sent: Mapping[str, Any]) -> bool:
    """Tells whether an item's input has everything that was sent; defaults may have been added."""
    if item.data_removed or not item.input:
        return False
    return all(item.input.get(key) == value for key, value in _comparable(sent).items())


def _comparable(sent: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns what of an input is echoed as it was recorded.

    An image of ours is sent under an address that only the create knows.
    """
    return {
        key: value
        for key, value in sent.items()
        if not (isinstance(value, str) and value.startswith(_UPLOADED))
    }


def _key(sent: Mapping[str, Any]) -> str:
    return json.dumps(_comparable(sent), sort_keys=True)
