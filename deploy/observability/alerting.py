"""What an alert is, and how one of its test cases looks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["Alert", "Case", "Condition", "Severity"]


class Severity(StrEnum):
    """Whom an alert calls."""

    PAGE = "page"
    """Somebody, now, at night too."""
    TICKET = "ticket"
    """Somebody, at work."""


@dataclass(frozen=True, slots=True)
class Condition:
    """When an alert fires."""

    expression: str
    """PromQL; each series that it yields is an alert of its own."""
    for_: str = "0m"
    """For how long it must yield one."""


@dataclass(frozen=True, slots=True)
class Case:
    """A world, and who is called in it."""

    series: Mapping[str, str]
    """What the processes show, one value a minute, in promtool's notation."""
    at: str
    """When to look."""
    fires: Sequence[Severity] = ()
    """What fires then; nothing else of this alert does."""
    labels: Sequence[Mapping[str, str]] = ({},)
    """What each alert of one severity says besides the labels of all."""


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that people are told."""

    name: str
    """Its runbook has the same name."""
    job: str
    """The service that it is about; while that is down altogether, only that is told."""
    summary: str
    """One sentence, without values, which the query of the alert shows."""
    conditions: Mapping[Severity, Condition]
    cases: Sequence[Case]
    """For each severity at least one in which it fires, and one in which it does not."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """That its series always carry."""
