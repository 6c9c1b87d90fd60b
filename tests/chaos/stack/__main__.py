"""Troubles the whole stack under load and judges what came of it: `make chaos`.

Every draw comes from the seed; the folder that it names at the end holds the journal and all the
evidence, which `python -m tests.chaos.stack.judge FOLDER` judges again. Ends with 1 if anything was
found.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # PostgreSQL's programs run as another user.

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.chaos.stack.exhibits import read
from tests.chaos.stack.performance import databases_at, perform, prepare_folder
from tests.chaos.stack.plan import Plan, Settings, draw
from tests.chaos.stack.report import as_json, report_of, show
from tests.chaos.stack.rules import judge_all
from tests.postgresql import PostgresqlServer, running_postgresql


def main() -> None:
    """Makes the run that the command line asks for."""
    parser = _parser()
    given = parser.parse_args()
    try:
        plan = draw(_settings(given))
    except ValueError as error:
        parser.error(str(error))
    folder = given.folder or Path(tempfile.mkdtemp(prefix="reelworks-chaos-"))
    prepare_folder(folder)
    console = Console(stderr=True)
    with _database(plan.settings.database) as server:
        _perform(plan, folder, server, console)
    exhibits = read(folder)
    findings = judge_all(exhibits)
    report = report_of(folder, exhibits, findings)
    if given.json:
        sys.stdout.write(as_json(report) + "\n")
    else:
        show(report, Console())
    console.print(f"the journal and the evidence: {folder}", soft_wrap=True)
    sys.exit(bool(findings))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.stack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, help="errands of people; by default 60 a minute")
    parser.add_argument("--minutes", type=float, default=2.0, help="of load and trouble")
    parser.add_argument("--replicas", type=int, default=2, help="of credits and of generation")
    parser.add_argument("--kills", type=int, help="of processes; by default 15 a minute")
    parser.add_argument("--database", choices=("postgresql", "sqlite"), default="postgresql")
    parser.add_argument("--calm", action="store_true", help="without any trouble")
    parser.add_argument("--folder", type=Path, help="where to leave the evidence; emptied first")
    parser.add_argument("--json", action="store_true", help="figures for programs")
    return parser


def _settings(given: argparse.Namespace) -> Settings:
    """Returns the settings of a run; SQLite belongs to one process a service."""
    jobs = round(60 * given.minutes) if given.jobs is None else given.jobs
    return Settings(
        seed=given.seed,
        jobs=jobs,
        load_s=60 * given.minutes,
        replicas=given.replicas if given.database == "postgresql" else 1,
        database=given.database,
        kills=round(15 * given.minutes) if given.kills is None else given.kills,
        faults=jobs // 2,
        is_rough=not given.calm,
    )


@contextlib.contextmanager
def _database(kind: str) -> Iterator[PostgresqlServer | None]:
    """A server of its own, that keeps what it has acknowledged: it is going to be restarted."""
    if kind == "sqlite":
        yield None
        return
    with running_postgresql(fsync=True) as server:
        yield server


def _perform(plan: Plan, folder: Path, server: PostgresqlServer | None, console: Console) -> None:
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=len(plan.errands))

        def done(what: str, errands: int, _total: int) -> None:
            progress.update(task, completed=errands, description=what)

        asyncio.run(perform(plan, folder, databases_at(folder, server), server, done))


if __name__ == "__main__":
    main()
