"""Says what is under way, of all replicas together."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from services.generation.state import Stage

__all__ = ["OpenFigures", "StageCount"]


@dataclass(frozen=True, slots=True)
class StageCount:
    """How many are at one stage."""

    stage: Stage
    generations: int
    oldest_at: datetime
    """Since when the one has been there that is there longest."""


@dataclass(frozen=True, slots=True)
class OpenFigures:
    """What is under way; all of it is few, however much has ended."""

    read_at: datetime
    """By the clock of the database."""
    stages: Sequence[StageCount]
    unsettled_credits: int
    """What is reserved for unfinished ones."""
    overdue: int
    """Unfinished ones whose deadline was a while ago, and that wait for no operator."""
    live_orphans: int
    """Predictions that no generation uses, as long as somebody sees to them."""
    is_paused: bool
    """Whether nothing is submitted."""
