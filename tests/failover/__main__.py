"""Takes PostgreSQL's primary away under load, three times, and judges: `make failover`.

Nothing that was acknowledged may be missing afterwards, the ledger must add up, all that the chaos
run demands of the whole stack must be so, and writes must be back within 30 seconds. Ends with 1 if
anything was found, with 3 if the programs that it needs are not there. `--control` has the primary
acknowledge alone, and ends with 1 if that is *not* found.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # PostgreSQL's programs run as another user.

from rich.console import Console
from rich.table import Table

from tests.chaos.house import Databases
from tests.chaos.stack.exhibits import Exhibits, read
from tests.chaos.stack.journal import Journal
from tests.chaos.stack.performance import perform, prepare_folder
from tests.chaos.stack.plan import Settings, draw
from tests.chaos.stack.rules import judge_all
from tests.chaos.stack.stack import Stack
from tests.failover.cluster import running_cluster
from tests.failover.judging import Outage, lost_of, outages_of
from tests.failover.probing import PREFIX, Probes
from tests.failover.programs import Missing, Programs, find_programs
from tests.failover.troubles import Director

NOT_HERE = 3
OUTAGE_S_MAX = 30.0
LEAST = 300
"""Movements that must have been acknowledged, or nothing was tried."""
LOAD_S = 110.0
CONTROL_LOAD_S = 20.0
LOST = "acknowledged and lost"
DEADLINE_S = 90.0
"""Of a generation, which may meet every outage."""


@dataclass
class Report:
    """What a run came to."""

    acknowledged: int = 0
    outages: list[Outage] = field(default_factory=list)
    ends: dict[str, int] = field(default_factory=dict)
    """Generations by how they ended."""
    violations: list[str] = field(default_factory=list)
    folder: str = ""


def main() -> None:
    """Makes a run."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.failover",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=90, help="errands of people")
    parser.add_argument("--folder", type=Path, help="where to leave the evidence; emptied first")
    parser.add_argument(
        "--control", action="store_true", help="without standbys that confirm: must find losses"
    )
    parser.add_argument("--json", action="store_true", help="figures for programs")
    given = parser.parse_args()
    try:
        programs = find_programs()
    except Missing as missing:
        Console(stderr=True).print(f"cannot run here: {missing}", highlight=False, soft_wrap=True)
        sys.exit(NOT_HERE)
    folder = given.folder or Path(tempfile.mkdtemp(prefix="reelworks-failover-"))
    prepare_folder(folder)
    settings = Settings(
        seed=given.seed,
        jobs=given.jobs,
        load_s=CONTROL_LOAD_S if given.control else LOAD_S,
        deadline_s=DEADLINE_S,
        is_rough=False,
    )
    report = asyncio.run(_run(programs, settings, folder, is_control=given.control))
    if given.json:
        # JSON has no word for an outage without an end.
        sys.stdout.write(json.dumps(asdict(report)).replace("Infinity", "null") + "\n")
    else:
        _show(report, Console())
    is_caught = any(one.startswith(LOST) for one in report.violations)
    sys.exit(not is_caught if given.control else bool(report.violations))


async def _run(programs: Programs, settings: Settings, folder: Path, *, is_control: bool) -> Report:
    report = Report(folder=str(folder))
    async with running_cluster(programs) as cluster:
        with (folder / "cluster.jsonl").open("w") as file:
            directors: list[Director] = []

            async def trouble(stack: Stack) -> None:
                async with stack.credits() as credits_:
                    probes = Probes(credits_)
                    directors.append(Director(cluster, probes, Journal(file)))
                    async with asyncio.TaskGroup() as tasks:
                        tasks.create_task(probes.run())
                        await (directors[0].lose() if is_control else directors[0].run())
                        probes.over.set()

            databases = Databases(folder, lambda: cluster.server)
            await perform(draw(settings), folder, databases, cluster.server, trouble=trouble)
    director, exhibits = directors[0], read(folder)
    acknowledged = director.probes.acknowledged
    lines = (json.dumps(asdict(one)) + "\n" for one in acknowledged)
    (folder / "acknowledged.jsonl").write_text("".join(lines))
    report.acknowledged = len(acknowledged)
    report.outages = outages_of(director.events, acknowledged)
    for row in exhibits.evidence.generations.values():
        report.ends[row["stage"]] = report.ends.get(row["stage"], 0) + 1
    report.violations = [
        *director.failures,
        *director.probes.defects,
        *_violations(report, director, exhibits),
    ]
    return report


def _violations(report: Report, director: Director, exhibits: Exhibits) -> list[str]:
    ledger = {(row["user_id"], row["key"], row["type"]) for row in exhibits.transactions}
    lost = lost_of(director.probes.acknowledged, ledger)
    found = [f"{LOST}: {one.user_id} {one.key} ({one.type})" for one in lost]
    found += [
        f"{one.event}: writes were back after {one.lasted_s:.1f} s, {OUTAGE_S_MAX:.0f} are allowed"
        for one in report.outages
        if one.lasted_s > OUTAGE_S_MAX
    ]
    if report.acknowledged < LEAST:
        found.append(f"only {report.acknowledged} movements were acknowledged")
    return found + [str(one) for one in judge_all(_without_probes(exhibits))]


def _without_probes(exhibits: Exhibits) -> Exhibits:
    """Returns what the judge of the whole stack knows how to judge: credits of generations."""

    def is_probe(row: Any) -> bool:
        return str(row["user_id"]).startswith(PREFIX)

    return replace(
        exhibits,
        accounts={key: row for key, row in exhibits.accounts.items() if not is_probe(row)},
        reservations={k: row for k, row in exhibits.reservations.items() if not is_probe(row)},
        transactions=[row for row in exhibits.transactions if not is_probe(row)],
    )


def _show(report: Report, console: Console) -> None:
    table = Table(
        "event", "writes back after s", "longest wait s", "repeated", "replayed", title="Outages"
    )
    for one in report.outages:
        table.add_row(
            one.event, f"{one.lasted_s:.1f}", f"{one.waited_s_max:.1f}",
            str(one.repeated), str(one.replayed),
        )  # fmt: skip
    console.print(table)
    ends = ", ".join(f"{end} {count}" for end, count in sorted(report.ends.items()))
    console.print(f"{report.acknowledged} movements acknowledged; generations: {ends}")
    for violation in report.violations:
        console.print(violation, markup=False, highlight=False, soft_wrap=True)
    count = len(report.violations)
    console.print(f"{count} violations" if count else "nothing that was acknowledged is missing")
    console.print(f"the journal and the evidence: {report.folder}", soft_wrap=True)


if __name__ == "__main__":
    main()
