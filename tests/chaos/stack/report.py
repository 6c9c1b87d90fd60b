"""Sums up a run by the folder that it left: what was done, what was broken, and what came of it."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.chaos.judge import Finding
from tests.chaos.stack.exhibits import Exhibits


@dataclass(frozen=True)
class Report:
    """The figures of a run."""

    settings: Mapping[str, Any]
    run_s: float
    ends: Mapping[str, int]
    """Generations by stage."""
    answers: Mapping[str, int]
    """What clients were told, by outcome."""
    troubles: Mapping[str, int]
    """What was done to the stack, by kind."""
    skipped: Mapping[str, int]
    """What was not, since whatever it was meant for was in other trouble."""
    failed: Mapping[str, int]
    """What was tried, and did not come about."""
    kills: Mapping[str, int]
    """By service, at random and at failpoints."""
    faults: Mapping[str, int]
    """Of the provider, as often as each fired."""
    failpoints: Mapping[str, Mapping[str, Any]]
    """How often a process died at each, and how what it had under way ended."""
    missed_failpoints: Sequence[str]
    """At which processes only waited to die, and nothing came by."""
    durations_s: Mapping[str, Mapping[str, float]]
    """From the create to the end: median, and what nine of ten took at most, by end."""
    webhooks: Mapping[str, int]
    predictions: Mapping[str, int]
    """What the provider made, by role in our books."""
    findings: Sequence[str]


def report_of(folder: Path, exhibits: Exhibits, findings: Sequence[Finding]) -> Report:
    """Returns the figures of a run."""
    generations = exhibits.evidence.generations
    lines = exhibits.noted
    done, skipped, failed = (_troubles(lines, kind) for kind in ("done", "skipped", "failed"))
    hits = [line for line in lines if line["kind"] == "hit"]
    points: dict[str, Counter[str]] = defaultdict(Counter)
    for line in hits:
        points[line["failpoint"]].update(
            generations[one]["stage"] for one in line["generation_ids"] if one in generations
        )
    counts = Counter(line["failpoint"] for line in hits)
    kills = Counter(one["service"] for one in done if one["what"] in ("kill", "failpoint"))
    kills.update(line["service"] for line in hits)
    provider = json.loads((folder / "provider.json").read_text())
    plan = next(line["plan"] for line in lines if line["kind"] == "plan")
    return Report(
        settings=plan["settings"],
        run_s=lines[-1]["run_s"],
        ends=Counter(row["stage"] for row in generations.values()),
        answers=Counter(line["outcome"] for line in exhibits.told),
        troubles=Counter(one["what"] for one in done),
        skipped=Counter(one["what"] for one in skipped),
        failed=Counter(one["what"] for one in failed),
        kills=kills,
        faults=Counter(one["kind"] for one in provider["firings"]),
        failpoints={
            name: {"hits": counts[name], "ends": dict(points[name])} for name in sorted(points)
        },
        missed_failpoints=sorted(
            {line["failpoint"] for line in lines if line["kind"] == "unhit"} - set(counts)
        ),
        durations_s=_durations(exhibits),
        webhooks={
            "sent": len(exhibits.webhooks),
            "acknowledged": sum(one["status"] == 200 for one in exhibits.webhooks),
            "stored": len(exhibits.inbox),
        },
        predictions=Counter(row["role"] for row in exhibits.evidence.predictions),
        findings=[str(finding) for finding in findings],
    )


def _troubles(lines: Sequence[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    return [line["trouble"] for line in lines if line["kind"] == kind]


def _durations(exhibits: Exhibits) -> dict[str, dict[str, float]]:
    by_end: dict[str, list[float]] = defaultdict(list)
    for row in exhibits.evidence.generations.values():
        if row["finished_at"] is not None:
            took = (row["finished_at"] - row["created_at"]).total_seconds()
            by_end[row["stage"]].append(took)
    return {end: _spread(times) for end, times in by_end.items()}


def _spread(times: Sequence[float]) -> dict[str, float]:
    tenths = quantiles(times, n=10) if len(times) > 1 else [times[0]] * 9
    return {
        "median": round(tenths[4], 2),
        "nine_of_ten": round(min(tenths[8], max(times)), 2),
        "longest": round(max(times), 2),
    }


def as_json(report: Report) -> str:
    """Returns the report for programs."""
    return json.dumps(asdict(report))


def show(report: Report, console: Console) -> None:
    """Prints the report for people."""
    settings = report.settings
    console.print(
        f"seed {settings['seed']}, {settings['jobs']} errands, {settings['database']}, "
        f"{settings['replicas']} replicas, {report.run_s:.0f} s",
        highlight=False,
    )
    ends = Table("end", "generations", "median s", "9 of 10 s", "longest s", title="Generations")
    for end, count in sorted(report.ends.items()):
        spread = report.durations_s.get(end, {})
        ends.add_row(end, str(count), *(f"{value:.1f}" for value in spread.values()))
    console.print(ends)
    for title, counts in (
        ("Troubles", report.troubles), ("Skipped", report.skipped), ("Failed", report.failed),
        ("Kills", report.kills), ("Faults fired", report.faults),
        ("Answers to clients", report.answers), ("Webhooks", report.webhooks),
        ("Predictions", report.predictions),
    ):  # fmt: skip
        told = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        console.print(f"{title}: {told or 'none'}", highlight=False)
    points = Table("failpoint", "hits", "how ended what was under way", title="Failpoints")
    for name, one in report.failpoints.items():
        told = ", ".join(f"{end} {count}" for end, count in sorted(one["ends"].items()))
        points.add_row(name, str(one["hits"]), told)
    console.print(points)
    if report.missed_failpoints:
        console.print(f"nothing came by at: {', '.join(report.missed_failpoints)}", highlight=False)
    for finding in report.findings:
        console.print(finding, markup=False, highlight=False, soft_wrap=True)
    count = len(report.findings)
    console.print(f"{count} violations" if count else "no violation")
