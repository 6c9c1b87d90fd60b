"""Plants each bug in a copy of the sources and shows which test catches it: `make mutants`."""

import asyncio
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.mutants.bugs import BUGS, ROOT, Bug

# The quickest first: a bug goes on to the next only when it survived.
STAGES = (
    ("tests/unit/credits/test_ledger.py",),
    ("tests/integration/credits/test_store.py", "tests/integration/credits/test_locks.py"),
    ("tests/integration/runtime/test_group_commit.py", "tests/integration/credits/test_schema.py"),
    ("tests/integration/credits/test_verification.py",),
    ("tests/unit/credits/test_ledger_machine.py",),
)
AT_ONCE = 2
STAGE_LIMIT_S = 300.0


@dataclass(frozen=True)
class Verdict:
    """What became of a bug."""

    bug: str
    caught_by: str | None
    """The first test that failed; None if none did."""


async def failed_test(tree: Path, tests: tuple[str, ...]) -> str | None:
    """Returns the first of these tests that fails on the sources in `tree`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "-p", "no:cacheprovider", *tests,
        cwd=tree,
        # Sources of the copy come before the installed ones.
        env=os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = await asyncio.wait_for(process.communicate(), STAGE_LIMIT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        return f"{tests[0]} (does not end)"
    if process.returncode == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) \S*?([^/\s]+::[^\s\[]+)", output.decode(), re.MULTILINE)
    if process.returncode != 1 or found is None:
        raise RuntimeError(f"pytest could not run:\n{output.decode()[-2000:]}")
    return found[1]


async def judge(bug: Bug | None) -> Verdict:
    """Returns what catches a bug; None plants nothing."""
    with tempfile.TemporaryDirectory(prefix="reelworks-mutant-") as folder:
        tree = Path(folder)
        for name in ("services", "tests"):
            ignored = shutil.ignore_patterns("__pycache__")
            await asyncio.to_thread(shutil.copytree, ROOT / name, tree / name, ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", tree)
        for replacement in bug.replacements if bug is not None else ():
            replacement.apply(tree)
        for tests in STAGES:
            caught_by = await failed_test(tree, tests)
            if caught_by is not None:
                return Verdict(bug.name if bug else "no bug", caught_by)
    return Verdict(bug.name if bug else "no bug", None)


async def judge_all(progress: Progress) -> list[Verdict]:
    """Returns what became of every bug, and first of none."""
    task = progress.add_task("planting bugs", total=len(BUGS) + 1)
    places = asyncio.Semaphore(AT_ONCE)

    async def one(bug: Bug | None) -> Verdict:
        async with places:
            verdict = await judge(bug)
        progress.advance(task)
        return verdict

    return await asyncio.gather(*(one(bug) for bug in (None, *BUGS)))


def main() -> int:
    """Prints a table; returns 1 if a bug survives, or if tests fail without any."""
    console = Console(width=None if sys.stdout.isatty() else 130)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        sound, *verdicts = asyncio.run(judge_all(progress))
    table = Table("bug", "caught by", title="Planted bugs")
    for verdict in verdicts:
        table.add_row(verdict.bug, verdict.caught_by or "[red]nothing[/red]")
    console.print(table)
    survivors = [verdict.bug for verdict in verdicts if verdict.caught_by is None]
    if sound.caught_by is not None:
        console.print(f"without any bug this fails already: {sound.caught_by}")
    console.print(f"{len(verdicts) - len(survivors)} of {len(verdicts)} bugs are caught")
    return 1 if survivors or sound.caught_by is not None else 0


if __name__ == "__main__":
    sys.exit(main())
