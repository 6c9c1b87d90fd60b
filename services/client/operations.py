"""What the generation service tells its operators, as plain values."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from reelworks.generation.v1 import generation_pb2

from services.client.history import (
    Generation,
    GenerationErrorCode,
    Stage,
    Status,
    generation_of,
)
from services.client.wire import moment, moment_if_set, named

__all__ = [
    "EndCount",
    "Finding",
    "Parked",
    "ParkedPage",
    "StageCount",
    "Stats",
    "parked_page_of",
    "stats_of",
]


@dataclass(frozen=True, slots=True)
class StageCount:
    """How many generations are at one stage."""

    stage: Stage
    """The stage."""
    generations: int
    """How many are there now."""
    oldest_at: datetime | None
    """Since when the one has been there that is there longest; None if there is none."""


@dataclass(frozen=True, slots=True)
class EndCount:
    """How many generations of the last day ended in one way."""

    status: Status
    """The status."""
    code: GenerationErrorCode | None
    """Why there is no video; None if there is one."""
    generations: int
    """How many."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A kind of difference between generations and their reservations."""

    kind: str
    """Its name, for example `CHARGED_WITHOUT_VIDEO`."""
    generations: int
    """How many there were in the last comparison."""


@dataclass(frozen=True, slots=True)
class Stats:
    """How the service is doing, all replicas together; "lately" is the last 24 hours."""

    stages: tuple[StageCount, ...]
    """What is unfinished, by stage; stages without a generation are left out."""
    ends: tuple[EndCount, ...]
    """What ended lately."""
    success_ratio: float | None
    """Completed ones among all that were not canceled or rejected, 0 to 1; None if none."""
    completion_p50_s: float | None
    """Half of the completed ones took less, from create to video; None if there were none."""
    completion_p90_s: float | None
    """Nine of ten of them took less; None if there were none."""
    ends_by_webhook: int
    """Predictions whose end a webhook told first, lately."""
    ends_by_poll: int
    """Predictions whose end a poll found first, lately."""
    unsettled_credits: int
    """Credits of users that are reserved for what is unfinished or parked."""
    live_orphans: int
    """Predictions that no generation uses and that have not ended."""
    orphans: int
    """All such predictions, lately; each may cost money that no user pays."""
    creates_paused_until: datetime | None
    """Until when nothing is submitted; None if the gate is open."""
    creates_paused_why: str
    """Why creates were paused last; empty if they never were."""
    findings: tuple[Finding, ...]
    """What the last comparison with the ledger found."""
    compared_at: datetime | None
    """When that comparison ended; None if there was none yet."""


@dataclass(frozen=True, slots=True)
class Parked:
    """A generation that an operator must look at."""

    generation: Generation
    """The generation."""
    stage: Stage
    """The stage that it stopped in."""
    parked_at: datetime
    """When it stopped."""
    reason: str
    """Why, in words for operators."""


@dataclass(frozen=True, slots=True)
class ParkedPage:
    """A part of what is parked, oldest first."""

    parked: tuple[Parked, ...]
    """The parked ones of this page."""
    next_page_token: str
    """Asks for the next page; empty at the end."""


def stats_of(message: generation_pb2.GetStatsResponse) -> Stats:
    """Returns the figures that a message holds."""
    generation = generation_pb2.Generation
    return Stats(
        stages=tuple(
            StageCount(
                named(Stage, generation.Stage, count.stage, prefix="STAGE_"),
                count.generations,
                moment_if_set(count, "oldest_time"),
            )
            for count in message.stages
        ),
        ends=tuple(
            EndCount(
                named(Status, generation.Status, count.status),
                named(GenerationErrorCode, generation.Error.Code, count.code)
                if count.code
                else None,
                count.generations,
            )
            for count in message.ends
        ),
        success_ratio=message.success_ratio if message.HasField("success_ratio") else None,
        completion_p50_s=_seconds(message, "completion_p50"),
        completion_p90_s=_seconds(message, "completion_p90"),
        ends_by_webhook=message.ends_by_webhook,
        ends_by_poll=message.ends_by_poll,
        unsettled_credits=message.unsettled_credits,
        live_orphans=message.live_orphans,
        orphans=message.orphans,
        creates_paused_until=moment_if_set(message, "creates_paused_until"),
        creates_paused_why=message.creates_paused_why,
        findings=tuple(Finding(f.kind, f.generations) for f in message.findings),
        compared_at=moment_if_set(message, "compare_time"),
    )


def parked_page_of(message: generation_pb2.ListParkedResponse) -> ParkedPage:
    """Returns the page that a message holds."""
    return ParkedPage(
        tuple(
            Parked(
                generation_of(parked.generation),
                named(Stage, generation_pb2.Generation.Stage, parked.stage, prefix="STAGE_"),
                moment(parked.park_time),
                parked.reason,
            )
            for parked in message.parked
        ),
        message.next_page_token,
    )


def _seconds(message: Any, field: str) -> float | None:
    # The stub lists the names of fields, and knows no type for one of them.
    if not message.HasField(field):
        return None
    seconds: float = getattr(message, field).ToTimedelta().total_seconds()
    return seconds
