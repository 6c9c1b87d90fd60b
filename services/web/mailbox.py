"""Holds what a reader of the stream was not sent yet: never much, and in an order to resume by."""

from collections import deque
from dataclasses import dataclass
from datetime import datetime

from services.client.credits import Balance
from services.client.generations import Eta, Generation
from services.web.event_ids import SKEW, Position

__all__ = ["KNOWN_MAX", "SENT_MAX", "WAITING_MAX", "Letter", "Mailbox", "Reset"]

WAITING_MAX = 1000
"""How many changed generations wait for a slow reader; with one more it begins anew."""
KNOWN_MAX = 100
"""How many generations of those read at the beginning wait for the reader."""
SENT_MAX = 200
"""Of so many generations is remembered what was sent last, so as not to send it twice."""

_UNSENT = -1


@dataclass(frozen=True, slots=True)
class Reset:
    """The reader shall forget what it knows, and read its history again."""


@dataclass(frozen=True, slots=True)
class Letter:
    """What a reader is sent next."""

    content: Generation | Balance | Reset
    """The news."""
    position: Position
    """How far the reader is once it has it."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """What tells two messages about one generation apart."""

    version: int
    queue_position: int | None
    eta: Eta | None


class Mailbox:
    """The mail of one reader: changes as they come, and before them what is known already.

    What is known is read while changes are already being collected, so nothing falls in between;
    changes wait until all of it was taken. At any moment, what was updated before `position` was
    taken, or waits in a newer version: a reader who is cut off goes on from there. That asks of
    `put_known` that those updated after the position come in order, and of `put` that none comes
    later than the overlap of ten seconds that every resumption has.
    """

    def __init__(
        self,
        position: Position | None,
        now: datetime,
        *,
        begins_anew: bool = False,
        waiting_max: int = WAITING_MAX,
    ) -> None:
        # Without a position the reader knows nothing; with `begins_anew`, nothing that helps.
        self._updated_at = _beginning(now) if position is None else position.updated_at
        self._balance_version_sent = _UNSENT if position is None else position.balance_version
        self._waiting_max = waiting_max
        self._balance: Balance | None = None
        self._waiting: dict[str, Generation] = {}
        self._known: deque[Generation] = deque()
        self._sent: dict[str, _Sent] = {}
        self._is_reset_due = begins_anew
        self._is_catching_up = True

    @property
    def position(self) -> Position:
        """How far the reader is."""
        return Position(self._updated_at, max(self._balance_version_sent, 0))

    @property
    def has_room(self) -> bool:
        """Whether `put_known` may be called."""
        return len(self._known) < KNOWN_MAX

    @property
    def waiting(self) -> int:
        """How many changes wait."""
        return len(self._waiting)

    def put(self, generation: Generation) -> None:
        """Takes in a change."""
        if self._is_reset_due or not self._is_news(generation):
            return
        waiting = self._waiting.get(generation.generation_id)
        if waiting is not None:
            # Of one version the later was read later: its place in the queue is newer.
            if generation.version >= waiting.version:
                self._waiting[generation.generation_id] = generation
        elif len(self._waiting) < self._waiting_max:
            self._waiting[generation.generation_id] = generation
        else:
            self._waiting.clear()
            self._known.clear()
            self._is_reset_due = True

    def put_balance(self, balance: Balance) -> None:
        """Takes in a balance."""
        if self._balance is None or balance.version > self._balance.version:
            self._balance = balance

    def put_known(self, generation: Generation) -> None:
        """Takes in one of those that are known already."""
        assert self.has_room, "what is known is read only as fast as it is taken"
        self._known.append(generation)

    def end_known(self) -> None:
        """Notes that all that is known already was put in."""
        self._is_catching_up = False

    def take(self, now: datetime) -> Letter | None:
        """Returns what is to be sent next, None if there is nothing.

        After a Reset, what is known has to be put in again.
        """
        if self._is_reset_due:
            self._begin_anew(now)
            return Letter(Reset(), self.position)
        if self._balance is not None and self._balance.version > self._balance_version_sent:
            self._balance_version_sent = self._balance.version
            return Letter(self._balance, self.position)
        while self._known:
            generation = self._known.popleft()
            waiting = self._waiting.get(generation.generation_id)
            if waiting is not None:
                if waiting.version > generation.version:
                    continue
                del self._waiting[generation.generation_id]
            if self._is_news(generation):
                return self._sending(generation)
        if self._is_catching_up or not self._waiting:
            return None
        # The oldest first, or a reader who is cut off would resume behind what still waits.
        oldest = min(self._waiting.values(), key=_age)
        del self._waiting[oldest.generation_id]
        return self._sending(oldest)

    def _is_news(self, generation: Generation) -> bool:
        sent = self._sent.get(generation.generation_id)
        if sent is None or generation.version > sent.version:
            return True
        return generation.version == sent.version and _mark(generation) != sent

    def _sending(self, generation: Generation) -> Letter:
        self._updated_at = max(self._updated_at, generation.updated_at)
        self._sent.pop(generation.generation_id, None)
        self._sent[generation.generation_id] = _mark(generation)
        if len(self._sent) > SENT_MAX:
            del self._sent[next(iter(self._sent))]
        return Letter(generation, self.position)

    def _begin_anew(self, now: datetime) -> None:
        self._updated_at = _beginning(now)
        self._balance_version_sent = _UNSENT
        self._sent.clear()
        self._known.clear()
        self._is_reset_due = False
        self._is_catching_up = True


def _beginning(now: datetime) -> datetime:
    # What happened before this, the reader finds in the history that it reads from now on.
    return now - SKEW


def _age(generation: Generation) -> datetime:
    return generation.updated_at


def _mark(generation: Generation) -> _Sent:
    return _Sent(generation.version, generation.queue_position, generation.eta)
