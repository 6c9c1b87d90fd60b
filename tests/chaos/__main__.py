"""Pairs every fault of the provider's create with crashes, and shows what came of it.

`python -m tests.chaos [--rounds N] [--postgresql N]`: in N rounds each fault meets at least N
points and each point N faults; 29 rounds are all pairs. Ends with 1 if anything was found.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # PostgreSQL's programs run as another user.

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.chaos.cases import FAULTS, POINTS, Case, pair
from tests.chaos.house import Ground, prepared_ground
from tests.chaos.running import HOUSES, Outcome, run_cases
from tests.postgresql import running_postgresql


def main() -> None:
    """Runs the cases that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds on SQLite")
    parser.add_argument("--postgresql", type=int, default=1, help="rounds on PostgreSQL")
    parser.add_argument("--houses", type=int, default=HOUSES, help="cases at a time")
    given = parser.parse_args()
    cases = pair(given.rounds) + [
        case
        for case in pair(given.postgresql, "postgresql")
        # Where leases are waited for, who asks again reserves before a worker does.
        if not case.point.name.startswith("RESERVING")
    ]
    console = Console()
    with _ground() as ground:
        outcomes = _run(console, ground, cases, given.houses)
    _show(console, outcomes)
    sys.exit(any(not outcome.is_good for outcome in outcomes))


@contextmanager
def _ground() -> Iterator[Ground]:
    with (
        tempfile.TemporaryDirectory(prefix="reelworks-chaos-") as folder,
        running_postgresql() as server,
        prepared_ground(Path(folder), lambda: server) as ground,
    ):
        yield ground


def _run(console: Console, ground: Ground, cases: Sequence[Case], houses: int) -> Sequence[Outcome]:
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("cases", total=len(cases))

        def done(outcome: Outcome) -> None:
            progress.update(task, advance=1, description=outcome.case.name)
            if not (outcome.is_good and console.is_terminal):
                # Where no bar can move, each case has a line.
                progress.console.print(f"{outcome.seconds:.1f} s {outcome}", markup=False)

        return asyncio.run(run_cases(ground, cases, houses, done))


def _show(console: Console, outcomes: Sequence[Outcome]) -> None:
    table = Table("fault", "crashes at", "bad", title="What was paired")
    for fault in FAULTS:
        mine = [outcome for outcome in outcomes if outcome.case.fault is fault]
        points = dict.fromkeys(outcome.case.point.name for outcome in mine)
        bad = sum(not outcome.is_good for outcome in mine)
        table.add_row(fault.name, ", ".join(points), str(bad or ""))
    console.print(table)
    console.print(_points(outcomes))
    met = {outcome.case.point.name for outcome in outcomes}
    missing = [point.name for point in POINTS if point.name not in met]
    bad = sum(not outcome.is_good for outcome in outcomes)
    findings = sum(len(outcome.findings) for outcome in outcomes)
    console.print(
        f"{len(outcomes)} cases, {len(FAULTS)} faults, {len(met)} of {len(POINTS)} points"
        f"{', missing: ' + ', '.join(missing) if missing else ''}; "
        f"{findings} findings of the judge, {bad} cases not as they must be"
    )


def _points(outcomes: Sequence[Outcome]) -> Table:
    """Returns how often processes died at each point, and how what they worked on ended."""
    table = Table("failpoint", "deaths", "how it ended", title="Where was crashed")
    for point in POINTS:
        mine = [outcome for outcome in outcomes if outcome.case.point is point]
        ends = Counter(end for outcome in mine for end in outcome.ends.values())
        told = ", ".join(f"{end} {count}" for end, count in sorted(ends.items()))
        table.add_row(point.name, str(len(mine) * len(point.kills)), told)
    return table


if __name__ == "__main__":
    main()
