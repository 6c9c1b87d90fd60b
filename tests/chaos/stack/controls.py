"""Plants a fault in the product, one at a time, and shows that the judge catches it.

`python -m tests.chaos.stack.controls`, or `make chaos-controls`. What is planted lies in
`tests.chaos.products`. Ends with 1 if anything was not caught, or if the honest product was.
"""

import asyncio
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

from rich.console import Console
from rich.table import Table

from tests.chaos.house import Databases
from tests.chaos.judge import Finding
from tests.chaos.products import BLIND, EMPTY, FORGETFUL, GENEROUS, UNFENCED
from tests.chaos.stack.exhibits import read
from tests.chaos.stack.performance import databases_at, perform, prepare_folder
from tests.chaos.stack.plan import Plan, Service, Settings, Trouble, draw
from tests.chaos.stack.rules import judge_all

SETTINGS = Settings(
    seed=11, jobs=14, load_s=6.0, replicas=1, database="sqlite", deadline_s=20.0, is_rough=False
)
SETTLE_S_MAX = 35.0
"""Some of what is planted keeps a run from ever being done."""
AT_ONCE = 3
LOST: Mapping[str, Any] = {"action": {"kind": "create_then_drop"}, "match": {"nth": 2}}
DRIPPING: Mapping[str, Any] = {
    "action": {"kind": "slow_bytes", "bytes_per_s": 3_000.0},
    "match": {"operation": "get"},
    "times": 60,
}
"""An answer takes so long that a webhook may overtake it, and less than a call may take."""


@dataclass(frozen=True)
class Control:
    """Something planted, and what must catch it."""

    name: str
    products: Mapping[Service, str] = field(default_factory=dict)
    rules: frozenset[str] = frozenset()
    """Of which at least one must be broken; none for the honest product."""
    faults: Sequence[Mapping[str, Any]] = ()


CONTROLS: Sequence[Control] = (
    Control("nothing", faults=(LOST, DRIPPING)),
    Control(
        "a create of unknown outcome is sent again", {Service.GENERATION: BLIND},
        frozenset({"J1", "J7", "S3"}), (LOST,),
    ),
    Control("a refund is made twice", {Service.GENERATION: GENEROUS}, frozenset({"S4"})),
    Control(
        "credits are committed for a video that is not stored", {Service.GENERATION: EMPTY},
        frozenset({"S1"}),
    ),
    Control(
        "a webhook is acknowledged and not stored", {Service.WEBHOOK: FORGETFUL},
        frozenset({"S9"}),
    ),
    Control(
        "a fence is ignored", {Service.GENERATION: UNFENCED}, frozenset({"J9"}), (DRIPPING,)
    ),
)  # fmt: skip


def plan_of(control: Control, settings: Settings = SETTINGS) -> Plan:
    """Returns what is done to show what a control shows."""
    troubles = [Trouble(0.0, "fault", fault=fault) for fault in control.faults]
    return replace(draw(settings), troubles=troubles)


async def findings_of(
    control: Control, folder: Path, databases: Databases, settings: Settings = SETTINGS
) -> list[Finding]:
    """Returns what the judge finds in a run with a control's product."""
    prepare_folder(folder)
    plan = plan_of(control, settings)
    await perform(plan, folder, databases, None, products=control.products, settle_s=SETTLE_S_MAX)
    return await asyncio.to_thread(lambda: judge_all(read(folder)))


def is_as_it_must_be(control: Control, findings: Sequence[Finding]) -> bool:
    """Tells whether the judge caught what was planted, and nothing where nothing was."""
    broken = {finding.rule for finding in findings}
    return bool(broken & control.rules) if control.rules else not broken


async def _run_all(folder: Path) -> list[tuple[Control, list[Finding]]]:
    places, databases = asyncio.Semaphore(AT_ONCE), databases_at(folder, None)

    async def run(number: int, control: Control) -> tuple[Control, list[Finding]]:
        async with places:
            return control, await findings_of(control, folder / str(number), databases)

    return await asyncio.gather(*(run(n, control) for n, control in enumerate(CONTROLS)))


def main() -> None:
    """Runs the controls and prints what caught each."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="reelworks-controls-") as folder:
        outcomes = asyncio.run(_run_all(Path(folder)))
    table = Table("planted", "caught", "by", "in words", title="Controls")
    for control, findings in outcomes:
        wanted = [one for one in findings if one.rule in control.rules] or findings
        by = ", ".join(sorted({finding.rule for finding in findings}))
        caught = "caught" if control.rules else "nothing to catch"
        verdict = caught if is_as_it_must_be(control, findings) else "NOT AS IT MUST BE"
        table.add_row(control.name, verdict, by, wanted[0].proof[:110] if wanted else "")
    console.print(table)
    bad = [
        control.name for control, findings in outcomes if not is_as_it_must_be(control, findings)
    ]
    console.print(f"not as it must be: {'; '.join(bad)}" if bad else "all are as they must be")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
