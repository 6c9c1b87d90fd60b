"""The figures of the generation service as a screen that operators read."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from services.cli.durations import duration
from services.cli.output import Column, print_line, print_table
from services.client.generations import Stage, Stats

__all__ = ["Fact", "facts", "print_stats"]

_STAGE_COLUMNS = (Column("STAGE"), Column("NOW", is_number=True), Column("OLDEST", is_number=True))
_END_COLUMNS = (Column("ENDED"), Column("24H", is_number=True), Column("WHY"))
_IN_ORDER = tuple(Stage)


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of the screen."""

    name: str
    """What it is about."""
    text: str
    """What is so."""
    needs_somebody: bool = False
    """Whether an operator should see to it."""


def facts(stats: Stats, now: datetime) -> Sequence[Fact]:
    """Returns what the figures say at `now`, in the order in which to look at it."""
    return (
        _submissions(stats, now),
        _parked(stats),
        Fact("credits", f"{stats.unsettled_credits} reserved for what is unfinished"),
        _orphans(stats),
        _ledger(stats, now),
        _success(stats),
        _completion(stats),
        _messengers(stats),
    )


def print_stats(stats: Stats, now: datetime) -> None:
    """Prints the screen: what is so now, what is unfinished, and what ended lately."""
    for fact in facts(stats, now):
        print_line(f"{fact.name:<12} {fact.text}", style="bold red" if fact.needs_somebody else "")
    stages = [
        (
            count.stage.lower(),
            count.generations,
            "" if count.oldest_at is None else duration((now - count.oldest_at).total_seconds()),
        )
        for count in sorted(stats.stages, key=lambda count: _IN_ORDER.index(count.stage))
    ]
    ends = [
        (count.status.lower(), count.generations, count.code.lower() if count.code else "")
        for count in stats.ends
    ]
    for columns, rows in ((_STAGE_COLUMNS, stages), (_END_COLUMNS, ends)):
        if rows:
            print_line()
            print_table(columns, rows)


def _submissions(stats: Stats, now: datetime) -> Fact:
    until = stats.creates_paused_until
    if until is None or until <= now:
        last = stats.creates_paused_why
        return Fact("submissions", "open" + (f"; paused last because: {last}" if last else ""))
    left = duration((until - now).total_seconds())
    return Fact("submissions", f"paused for {left}: {stats.creates_paused_why}", True)


def _parked(stats: Stats) -> Fact:
    parked = sum(count.generations for count in stats.stages if count.stage is Stage.PARKED)
    if not parked:
        return Fact("parked", "nothing")
    return Fact("parked", f"{parked}; see `reelworks generations parked`", True)


def _orphans(stats: Stats) -> Fact:
    return Fact(
        "orphans",
        f"{stats.live_orphans} live, {stats.orphans} in 24 h",
        stats.live_orphans > 0,
    )


def _ledger(stats: Stats, now: datetime) -> Fact:
    if stats.compared_at is None:
        return Fact("ledger", "not compared yet; unless set otherwise, that is done every 5 min")
    age = duration((now - stats.compared_at).total_seconds())
    found = [finding for finding in stats.findings if finding.generations]
    if not found:
        return Fact("ledger", f"agrees, as of {age} ago")
    differences = ", ".join(f"{finding.kind} {finding.generations}" for finding in found)
    return Fact("ledger", f"differs, as of {age} ago: {differences}", True)


def _success(stats: Stats) -> Fact:
    if stats.success_ratio is None:
        return Fact("success", "nothing ended in 24 h")
    return Fact("success", f"{stats.success_ratio:.1%} in 24 h")


def _completion(stats: Stats) -> Fact:
    if stats.completion_p50_s is None or stats.completion_p90_s is None:
        return Fact("duration", "no video in 24 h")
    half, most = duration(stats.completion_p50_s), duration(stats.completion_p90_s)
    return Fact("duration", f"half within {half}, nine of ten within {most}")


def _messengers(stats: Stats) -> Fact:
    told = stats.ends_by_webhook + stats.ends_by_poll
    share = f" ({stats.ends_by_webhook / told:.0%} by webhook)" if told else ""
    return Fact(
        "ends told", f"{stats.ends_by_webhook} by webhooks, {stats.ends_by_poll} by polls{share}"
    )
