"""What a dashboard is made of: rows of panels, each a question and its answer in PromQL."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["RATE", "Board", "Panel", "Row", "quantiles", "zero"]

RATE = "[$__rate_interval]"
"""The window of a rate: Grafana makes it as wide as a point of the graph, four scrapes at least."""

Unit = Literal[
    "short", "percentunit", "s", "dtdurations", "reqps", "ops", "bytes", "currencyUSD", "none"
]


@dataclass(frozen=True, slots=True)
class Panel:
    """A graph, or one big number."""

    title: str
    says: str
    """What it means; stands behind the i in its corner."""
    queries: Sequence[tuple[str, str]]
    """PromQL, and the name of what it yields."""
    unit: Unit = "short"
    width: int = 8
    """Of 24 columns."""
    kind: Literal["graph", "stacked", "number"] = "graph"
    red_above: float | None = None
    """From where on a number is bad, or where a graph has its red line."""
    red_below: float | None = None
    """The same from the other side."""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels that belong together."""

    title: str
    panels: Sequence[Panel] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class Board:
    """A page of panels."""

    name: str
    title: str
    says: str
    rows: Sequence[Row]


def zero(title: str, says: str, expression: str, width: int = 4) -> Panel:
    """Returns a number that is red unless it is 0."""
    return Panel(title, says, ((expression, ""),), "none", width, "number", red_above=0.5)


def quantiles(
    title: str, says: str, metric: str, labels: str = "", limit: float | None = None, width: int = 8
) -> Panel:
    """Returns how long something took: half, nine of ten, and 99 of a hundred."""
    inner = f"{{{labels}}}" if labels else ""
    buckets = f"sum by (le) (rate({metric}_bucket{inner}{RATE}))"
    queries = tuple(
        (f"histogram_quantile({share}, {buckets})", legend)
        for share, legend in ((0.5, "half"), (0.9, "nine of ten"), (0.99, "99 of 100"))
    )
    return Panel(title, says, queries, "s", width, red_above=limit)
