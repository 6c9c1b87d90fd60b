"""Measures the generation service: what lies in flight, what has ended, and what passes through.

    make bench-generation                   tables
    .venv/bin/python -m benchmarks.bench_generation --parts claims --finished 100000 --json

* in flight: memory and processor of the service with thousands of generations at the provider,
  beside the same service with none;
* claims: what finding, claiming and writing back work costs beside a million generations that have
  ended, against a thousand;
* throughput: videos a second through the whole saga, against the same gRPC and HTTP calls made by a
  plain loop that keeps nothing.

What is compared runs side by side or in turns, since only the ratios of figures of one run on one
machine mean much. Processes, databases and fsyncs are real; the simulator stands in for the
provider.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.generation_claims import Costs, measure_claims, opened_bench
from benchmarks.generation_ground import DATABASES, Databases, opened_databases
from benchmarks.generation_in_flight import (
    EMPTY,
    POLLING,
    QUIET,
    Cost,
    measure_in_flight,
    prepare_places,
)
from benchmarks.generation_rows import fill
from benchmarks.generation_throughput import (
    LOOP,
    SAGA,
    Throughput,
    measure_throughput,
    prepare_ground,
)
from services.runtime.telemetry import configure_log

IN_FLIGHT, CLAIMS, THROUGHPUT = "in-flight", "claims", "throughput"
PARTS = (IN_FLIGHT, CLAIMS, THROUGHPUT)
FEW = 1000

Made = Mapping[str, Databases]
Figures = dict[str, Any]
"""By kind of database."""


def in_flight(made: Made, arguments: argparse.Namespace, progress: Progress) -> Figures:
    """Returns what the service costs with generations in flight."""
    places = prepare_places(made)
    task = progress.add_task("in flight: predictions", total=arguments.in_flight)
    with tempfile.TemporaryDirectory(prefix="reelworks-benchmark-") as folder:
        costs = uvloop.run(
            measure_in_flight(
                places,
                Path(folder),
                arguments.in_flight,
                arguments.window,
                partial(progress.advance, task),
            )
        )
    return {kind: _in_flight_figures(kind, costs) for kind in made}


def _in_flight_figures(kind: str, costs: Mapping[tuple[str, str], Cost]) -> dict[str, float]:
    empty, quiet, polling = (costs[kind, state] for state in (EMPTY, QUIET, POLLING))
    looks_cpu = (polling.cpu_percent - quiet.cpu_percent) * 10 / max(polling.looks_per_s, 1e-9)
    return {
        "cpu_percent_with_none": empty.cpu_percent,
        "cpu_percent_besides_polls": quiet.cpu_percent,
        "cpu_percent_with_polls": polling.cpu_percent,
        "polls_per_s": polling.looks_per_s,
        "cpu_ms_of_a_poll": looks_cpu,
        "resident_mib_with_none": empty.memory.resident,
        "resident_mib_grown": quiet.memory.resident - empty.memory.resident,
        "resident_mib_grown_with_polls": polling.memory.resident - empty.memory.resident,
        "proportional_mib_grown": quiet.memory.proportional - empty.memory.proportional,
    }


def claims(made: Made, arguments: argparse.Namespace, progress: Progress) -> Figures:
    """Returns what claims cost beside few and beside many generations that ended."""
    counts = (FEW, arguments.finished)
    task = progress.add_task("claims: rows", total=sum(counts) * len(made))
    urls = {
        kind: [databases.make("generation", f"finished-{count}") for count in counts]
        for kind, databases in made.items()
    }

    async def fill_all() -> None:
        advance = partial(progress.advance, task)
        async with asyncio.TaskGroup() as filling:
            for pair in urls.values():
                for url, count in zip(pair, counts, strict=True):
                    filling.create_task(fill(url, count, advance))

    async def measure(kind: str) -> dict[str, tuple[Costs, Costs]]:
        few_url, many_url = urls[kind]
        servers = made[kind].servers
        async with (
            opened_bench(few_url, partial(servers, few_url)) as few,
            opened_bench(many_url, partial(servers, many_url)) as many,
        ):
            advance = partial(progress.advance, task)
            return await measure_claims(few, many, arguments.turns, advance)

    uvloop.run(fill_all())
    task = progress.add_task("claims: turns", total=(arguments.turns + 1) * len(made))
    return {
        kind: {work: _claim_figures(*pair) for work, pair in uvloop.run(measure(kind)).items()}
        for kind in made
    }


def _claim_figures(few: Costs, many: Costs) -> dict[str, float]:
    return {
        "few_elapsed_ms": statistics.median(few.elapsed_ms),
        "many_elapsed_ms": statistics.median(many.elapsed_ms),
        "elapsed_ratio": _ratio(many.elapsed_ms, few.elapsed_ms),
        "few_cpu_ms": statistics.median(few.cpu_ms),
        "many_cpu_ms": statistics.median(many.cpu_ms),
        "cpu_ratio": _ratio(many.cpu_ms, few.cpu_ms),
    }


def throughput(made: Made, arguments: argparse.Namespace, progress: Progress) -> Figures:
    """Returns what the saga makes a second, and what the plain loop does."""
    rounds = 2 * arguments.rounds + 1
    task = progress.add_task("throughput: rounds", total=rounds * len(made))
    return {
        kind: _throughput_figures(
            uvloop.run(
                measure_throughput(
                    prepare_ground(databases),
                    arguments.jobs,
                    arguments.rounds,
                    partial(progress.advance, task),
                )
            )
        )
        for kind, databases in made.items()
    }


def _throughput_figures(found: Throughput) -> dict[str, float]:
    saga, loop = found.rounds[SAGA], found.rounds[LOOP]
    settled = statistics.quantiles(found.settle_times_s, n=100)
    ways = (("saga", saga), ("loop", loop))
    figures: dict[str, float] = {}
    for way, rounds in ways:
        figures |= {
            f"{way}_jobs_per_s": statistics.median(r.jobs_per_s for r in rounds),
            f"{way}_cpu_ms_per_job": statistics.median(1000 * r.cpu_s / r.jobs for r in rounds),
            f"{way}_all_cpu_ms_per_job": statistics.median(
                1000 * r.all_cpu_s / r.jobs for r in rounds
            ),
        }
    return figures | {
        "jobs_per_s_ratio": _ratio([r.jobs_per_s for r in saga], [r.jobs_per_s for r in loop]),
        "cpu_ratio": _ratio([r.cpu_s for r in saga], [r.cpu_s for r in loop]),
        "all_cpu_ratio": _ratio([r.all_cpu_s for r in saga], [r.all_cpu_s for r in loop]),
        "saga_resident_mib": saga[-1].memory_mib,
        "settled_after_s_p50": settled[49],
        "settled_after_s_p99": settled[98],
    }


def _ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Returns the median of each round's ratio, so that a slow minute weighs on both sides."""
    return statistics.median(x / y for x, y in zip(over, under, strict=True))


def show(figures: Mapping[str, Figures], arguments: argparse.Namespace, console: Console) -> None:
    """Prints the figures beside each other."""
    captions = {
        IN_FLIGHT: f"{arguments.in_flight:,} in flight; CPU in percent of one processor",
        CLAIMS: f"{arguments.finished:,} finished against {FEW:,}: look, claim and write back, "
        "for each generation",
        THROUGHPUT: f"{arguments.jobs:,} videos wanted at once, by the saga and by a plain loop",
    }
    for part, found in figures.items():
        table = Table(title=captions[part])
        table.add_column("figure", no_wrap=True)
        for kind in found:
            table.add_column(kind, justify="right")
        rows = {kind: dict(_flat(of_kind)) for kind, of_kind in found.items()}
        for name in next(iter(rows.values())):
            table.add_row(name, *(f"{row[name]:,.2f}" for row in rows.values()))
        console.print(table)
    console.print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")


def _flat(figures: Figures) -> list[tuple[str, float]]:
    """Returns names and figures, with the name of a group before those in it."""
    flat = []
    for name, value in figures.items():
        if isinstance(value, dict):
            flat += [(f"{name} {inner}", number) for inner, number in value.items()]
        else:
            flat.append((name, value))
    return [(name.replace("_", " "), number) for name, number in flat]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure")
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=DATABASES)
    parser.add_argument("--in-flight", type=int, default=10_000, help="generations at the provider")
    parser.add_argument("--window", type=float, default=30.0, help="seconds they are watched for")
    parser.add_argument("--finished", type=int, default=1_000_000, help="generations that ended")
    parser.add_argument("--turns", type=int, default=8, help="of claims, on each database")
    parser.add_argument("--jobs", type=int, default=200, help="videos a round and way")
    parser.add_argument("--rounds", type=int, default=2, help="of videos, each way")
    parser.add_argument("--json", action="store_true", help="print figures for programs")
    arguments = parser.parse_args()
    configure_log("benchmark", level="ERROR")
    # A pipe has no width of its own.
    console = Console(stderr=arguments.json, width=None if sys.stdout.isatty() else 110)
    measures = {IN_FLIGHT: in_flight, CLAIMS: claims, THROUGHPUT: throughput}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with (
        contextlib.ExitStack() as stack,
        Progress(*columns, TimeElapsedColumn(), console=console) as progress,
    ):
        made = {kind: stack.enter_context(opened_databases(kind)) for kind in arguments.databases}
        figures = {part: measures[part](made, arguments, progress) for part in arguments.parts}
    if arguments.json:
        machine = {"load": os.getloadavg()[0], "processors": os.cpu_count()}
        print(json.dumps({"figures": figures, "machine": machine}, indent=2))
    else:
        show(figures, arguments, console)


if __name__ == "__main__":
    main()
