"""What is tried: faults of the provider's create, points to crash at, and how they are paired."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from services.simulator.faults.action import Operation
from services.simulator.faults.actions import (
    CreateLate,
    CreateThenDrop,
    CreateThenHang,
    CreateThenStatus,
    Drop,
    Empty200,
    HugeHeaders,
    MalformedJson,
    NoCredit,
    NoVersion,
    NullModel,
    OmitFromList,
    Redirect,
    SlowBytes,
    Status,
    Throttle,
    UnknownStatus,
    WebhookBeforeCreateAnswer,
)
from services.simulator.faults.fault import AnyAction
from services.simulator.faults.webhook_actions import DropWebhook

ROUNDS = int(os.environ.get("REELWORKS_TEST_CHAOS_ROUNDS", "1"))
"""How often each fault and each point come at the least."""
CALM_S = 120.0
"""Deadline of a generation in a case that has nothing to do with deadlines."""
MARGIN_S = 10.0
"""With less time left than this nothing is submitted."""


class Traffic(StrEnum):
    """What a user does."""

    PLAIN = "plain"
    """Asks for a video and waits."""
    CANCELED = "canceled"
    """Cancels when the provider has the job."""
    IMAGE = "image"
    """Asks for a video that starts from an uploaded image."""
    OVERDUE = "overdue"
    """Asks for a video that is never done, and waits."""


class Effect(StrEnum):
    """What a fault does to a create."""

    HARMLESS = "harmless"
    """It is answered, if oddly."""
    PASSING = "passing"
    """It is put off."""
    REFUSED = "refused"
    """It is refused for good."""
    LOST = "lost"
    """It makes a prediction, and the answer says nothing of it."""
    NOTHING = "nothing"
    """It makes nothing, and the answer does not say so."""


@dataclass(frozen=True)
class CreateFault:
    """A fault of the provider's create."""

    name: str
    action: AnyAction
    effect: Effect


FAULTS: Sequence[CreateFault] = (
    CreateFault("create_then_drop", CreateThenDrop(), Effect.LOST),
    CreateFault("status_500", Status(status=500), Effect.NOTHING),
    CreateFault("create_then_hang", CreateThenHang(hang_s=3), Effect.LOST),
    CreateFault("throttle", Throttle(), Effect.PASSING),
    CreateFault("create_then_500", CreateThenStatus(status=500), Effect.LOST),
    CreateFault("status_422", Status(status=422), Effect.REFUSED),
    CreateFault("create_late", CreateLate(late_s=1), Effect.LOST),
    CreateFault("unknown_status", UnknownStatus(), Effect.HARMLESS),
    CreateFault("drop_before_create", Drop(), Effect.NOTHING),
    CreateFault("malformed_json", MalformedJson(), Effect.LOST),
    CreateFault("no_credit", NoCredit(), Effect.PASSING),
    CreateFault("create_then_502_html", CreateThenStatus(status=502, html=True), Effect.LOST),
    CreateFault("before_create_answer", WebhookBeforeCreateAnswer(), Effect.HARMLESS),
    CreateFault("status_400", Status(status=400), Effect.REFUSED),
    CreateFault("empty_200", Empty200(), Effect.LOST),
    CreateFault("redirect_302", Redirect(), Effect.NOTHING),
    CreateFault("throttle_in_body", Throttle(told_in="body"), Effect.PASSING),
    CreateFault("create_then_503", CreateThenStatus(status=503), Effect.LOST),
    CreateFault("null_model", NullModel(), Effect.HARMLESS),
    CreateFault("status_409", Status(status=409), Effect.NOTHING),
    CreateFault("slow_bytes", SlowBytes(), Effect.LOST),
    CreateFault("status_401", Status(status=401), Effect.PASSING),
    CreateFault("create_then_504", CreateThenStatus(status=504), Effect.LOST),
    CreateFault("no_version", NoVersion(), Effect.HARMLESS),
    CreateFault("status_503_html", Status(status=503, html=True), Effect.NOTHING),
    CreateFault("huge_headers", HugeHeaders(), Effect.LOST),
    CreateFault("status_403", Status(status=403), Effect.REFUSED),
    CreateFault("status_408", Status(status=408), Effect.NOTHING),
    CreateFault("status_404", Status(status=404), Effect.REFUSED),
)


USUAL = (Traffic.PLAIN, Traffic.CANCELED, Traffic.IMAGE)


@dataclass(frozen=True)
class Spoiled:
    """A fault for whoever accompanies the one that a case is about."""

    action: AnyAction
    operation: Operation
    times: int | None = 1
    lasts_s: float | None = None


@dataclass(frozen=True)
class Point:
    """A line at which the process is killed, and what it takes to come there for certain.

    Beside the generation that meets the fault there is always a companion, which meets none but
    `companion`, so that the point is reached whatever the fault does.
    """

    name: str
    lives: tuple[str, ...] = ()
    """Failpoints of each process in turn that is killed; without any, the point itself."""
    traffic: Traffic | None = None
    """What both users must do; None = whatever."""
    companion: tuple[Spoiled, ...] = ()
    is_abandoned: bool = False
    """Whether the companion's user cancels while nobody knows what became of the create."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Of the product, where others than the usual are needed."""

    @property
    def kills(self) -> tuple[str, ...]:
        return self.lives or (self.name,)


_MUTE = Spoiled(DropWebhook(), Operation.WEBHOOK, times=None)
_UNHEARD = (Spoiled(CreateThenDrop(), Operation.CREATE), _MUTE)
"""A lost create of which no webhook tells."""
_HIDDEN = Spoiled(OmitFromList(), Operation.LIST, times=None, lasts_s=3)
_CROWDED = {
    "CREATES_PER_S": "0.15",
    "CREATES_BURST": "1",
    "DURATIONS": '{"deadline_s": 7, "submit_margin_s": 2}',
}
"""Only one can be submitted before the deadline of the other."""
_SHORT = {"DURATIONS": '{"deadline_s": 3.5, "submit_margin_s": 0.5}'}
"""What is never done comes to its deadline, before the provider's own of at least 5 s."""


def _both(stage: str, traffic: Traffic) -> tuple[Point, Point]:
    return Point(f"{stage}.claimed", traffic=traffic), Point(f"{stage}.answered", traffic=traffic)


POINTS: Sequence[Point] = (
    Point("create.before_commit"),
    Point("submit.sent"),
    *_both("ARCHIVING", Traffic.PLAIN),
    Point("event.received"),
    *_both("CANCELING", Traffic.CANCELED),
    Point("submit.claimed"),
    Point("batch.before_commit", lives=("batch.before_commit=3",)),
    Point("search.found", companion=_UNHEARD),
    *_both("COMMITTING", Traffic.IMAGE),
    Point("submit.answered"),
    Point("event.before_commit"),
    *_both("REFUNDING", Traffic.CANCELED),
    Point("search.claimed", companion=_UNHEARD),
    Point("create.recorded"),
    Point("gate.locked"),
    *_both("RUNNING", Traffic.PLAIN),
    Point("search.absent", companion=(Spoiled(Drop(), Operation.CREATE),)),
    Point("batch.after_commit", lives=("batch.after_commit=3",)),
    Point("RESERVING.claimed", lives=("create.recorded", "RESERVING.claimed")),
    Point("RESERVING.answered", lives=("create.recorded", "RESERVING.answered")),
    Point("orphan.claimed", companion=(*_UNHEARD, _HIDDEN), is_abandoned=True),
    Point("event.recorded"),
    Point("archive.downloaded", traffic=Traffic.PLAIN),
    Point("SUBMITTING.claimed", lives=("submit.sent", "SUBMITTING.claimed")),
    Point("SUBMITTING.answered", lives=("submit.sent", "SUBMITTING.answered")),
    Point("cancel.received", traffic=Traffic.CANCELED),
    Point("cancel.recorded", traffic=Traffic.CANCELED),
    Point("orphan.canceled", companion=(*_UNHEARD, _HIDDEN), is_abandoned=True),
    Point("deadline.claimed", ("CANCELING.claimed",), traffic=Traffic.OVERDUE, settings=_SHORT),
    Point("deadline.answered", ("CANCELING.answered",), traffic=Traffic.OVERDUE, settings=_SHORT),
    Point("READY.claimed", traffic=Traffic.PLAIN, settings=_CROWDED),
    Point("READY.answered", traffic=Traffic.PLAIN, settings=_CROWDED),
)


@dataclass(frozen=True)
class Case:
    """One thing to try."""

    number: int
    fault: CreateFault
    point: Point
    traffic: Traffic
    backend: str = "sqlite"

    @property
    def name(self) -> str:
        return f"{self.fault.name} / {self.point.name} / {self.traffic} / {self.backend}"


def pair(rounds: int, backend: str = "sqlite") -> list[Case]:
    """Returns cases in which each fault meets at least `rounds` points, and each point as many.

    As many rounds as there are faults pair everything with everything.
    """
    per_round = max(len(FAULTS), len(POINTS))
    cycle = math.lcm(len(FAULTS), len(POINTS))
    cases = []
    for number in range(min(rounds * per_round, len(FAULTS) * len(POINTS))):
        # After a whole cycle of both the same pairs would come again, so one of them moves on.
        point = POINTS[number % len(POINTS)]
        fault = FAULTS[(number + number // cycle) % len(FAULTS)]
        traffic = point.traffic or USUAL[number % len(USUAL)]
        cases.append(Case(number, fault, point, traffic, backend))
    return cases
