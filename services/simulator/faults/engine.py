"""Decides which fault fires where, and remembers that it did."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from services.simulator.accounts import account_key
from services.simulator.faults.action import Action, Operation
from services.simulator.faults.fault import Fault, Group, Subject
from services.simulator.plan import stream

__all__ = ["FaultEngine", "Firing", "StandingFault"]

FIRINGS_MAX = 20_000

ActionType = TypeVar("ActionType")


@dataclass(slots=True)
class StandingFault:
    """A fault that is in force, and how far it has come."""

    number: int
    """1, 2, 3 … since the start or the last reset."""
    fault: Fault
    ends_at: float | None
    seen: int = 0
    """How often all but `nth` and `probability` matched."""
    fired: int = 0

    def answer(self) -> dict[str, Any]:
        """Returns what the control API says about it."""
        return {
            "id": self.number,
            **self.fault.model_dump(mode="json"),
            "seen": self.seen,
            "fired": self.fired,
        }


@dataclass(frozen=True, slots=True)
class Firing:
    """One time that a fault fired."""

    number: int
    at: float
    """Seconds since the epoch."""
    fault: int
    """Number of the fault."""
    kind: str
    """Kind of its action."""
    operation: Operation
    account: str
    model: str | None
    generation: str | None
    prediction: str | None
    event: str | None


class FaultEngine:
    """The faults in force, tried in the order in which they came.

    What is drawn depends on the seed, the fault's number and how often it was met, on nothing else:
    the same operations in the same order meet the same faults.
    """

    def __init__(self, seed: int, clock: Callable[[], float]) -> None:
        self._seed = seed
        self._clock = clock
        self.clear()

    def clear(self) -> None:
        """Removes all faults and forgets what fired; numbers begin again."""
        self._faults: dict[int, StandingFault] = {}
        self._last_number = 0
        self._firings: deque[Firing] = deque(maxlen=FIRINGS_MAX)
        self._fired = 0

    def __iter__(self) -> Iterator[StandingFault]:
        return iter(self._faults.values())

    @property
    def firings(self) -> Iterator[Firing]:
        """The latest 20,000 firings, oldest first."""
        return iter(self._firings)

    def add(self, fault: Fault) -> StandingFault:
        """Puts a fault into force, behind those that are."""
        self._last_number += 1
        ends_at = None if fault.lasts_s is None else self._clock() + fault.lasts_s
        standing = StandingFault(self._last_number, fault, ends_at)
        self._faults[standing.number] = standing
        return standing

    def has_room(self, faults_max: int) -> bool:
        """Tells whether there are fewer than so many; those that are over make room if not."""
        if len(self._faults) >= faults_max:
            now = self._clock()
            self._faults = {n: one for n, one in self._faults.items() if not _is_over(one, now)}
        return len(self._faults) < faults_max

    def remove(self, number: int) -> bool:
        """Removes one fault; returns whether there was one."""
        return self._faults.pop(number, None) is not None

    def remove_all(self) -> None:
        """Removes all faults; what fired is remembered."""
        self._faults.clear()

    def fire(self, subject: Subject, group: Group[ActionType]) -> ActionType | None:
        """Returns the action of the first fault of `group` that fires at `subject`."""
        for standing in self._faults.values():
            action = group.member(standing.fault.action)
            if action is not None and self._fires(standing, subject):
                return action
        return None

    def fire_all(self, subject: Subject, group: Group[ActionType]) -> list[ActionType]:
        """Returns the actions of all faults of `group` that fire at `subject`."""
        return [
            action
            for standing in self._faults.values()
            if (action := group.member(standing.fault.action)) is not None
            and self._fires(standing, subject)
        ]

    def _fires(self, standing: StandingFault, subject: Subject) -> bool:
        fault, now = standing.fault, self._clock()
        if _is_over(standing, now) or not _matches(fault, subject):
            return False
        standing.seen += 1
        if fault.match.nth not in (None, standing.seen):
            return False
        draw = stream(self._seed, "fault", standing.number, standing.seen)
        if fault.match.probability < 1 and draw.random() >= fault.match.probability:
            return False
        standing.fired += 1
        self._fired += 1
        self._firings.append(
            Firing(
                number=self._fired,
                at=now,
                fault=standing.number,
                kind=fault.action.kind,
                **asdict(subject),
            )
        )
        return True


def _is_over(standing: StandingFault, now: float) -> bool:
    times = standing.fault.times
    is_spent = times is not None and standing.fired >= times
    return is_spent or (standing.ends_at is not None and standing.ends_at <= now)


def _matches(fault: Fault, subject: Subject) -> bool:
    """Returns whether all that the fault names is the subject's, besides `nth` and chance."""
    match, action = fault.match, fault.action
    assert isinstance(action, Action)
    return (
        subject.operation in action.operations
        and match.operation in (None, subject.operation)
        and match.model in (None, subject.model)
        and match.generation in (None, subject.generation)
        and match.prediction in (None, subject.prediction)
        and match.event in (None, subject.event)
        and (match.token is None or account_key(match.token) == subject.account)
    )
