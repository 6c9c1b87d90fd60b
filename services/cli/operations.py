"""`reelworks generations …` for operators: how the service is doing, and what stopped."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from services.cli.durations import duration
from services.cli.options import JsonOption, VarOption, certificates_of_operator, run
from services.cli.output import Column, print_json, print_line, print_note, print_table
from services.cli.statistics import print_stats
from services.cli.up_file import service_address
from services.client.generations import (
    Generation,
    GenerationClient,
    Parked,
    Stage,
    Stats,
)

__all__ = ["application", "parked", "refund", "resume", "stats"]

application = typer.Typer()

_IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Its id.")]

_STAGES = (
    Stage.RESERVING,
    Stage.READY,
    Stage.SUBMITTING,
    Stage.RUNNING,
    Stage.CANCELING,
    Stage.ARCHIVING,
    Stage.COMMITTING,
    Stage.REFUNDING,
)
"""Where something is still to be done."""
_PARKED_COLUMNS = (
    Column("GENERATION"),
    Column("USER"),
    Column("PARKED (UTC)"),
    Column("FOR", is_number=True),
    Column("STAGE"),
    Column("CREDITS", is_number=True),
    Column("WHY", folds=True),
)


@application.command()
def stats(var: VarOption = Path("var"), as_json: JsonOption = False) -> None:
    """Show operators how the service is doing.

    With --json: one document.
    """
    found = run(_stats(service_address("generation", var)))
    if as_json:
        print_json(found)
    else:
        print_stats(found, datetime.now(UTC))


@application.command()
def parked(
    limit: Annotated[
        int, typer.Option(min=1, max=1000, help="How many, of all users, oldest first.")
    ] = 50,
    var: VarOption = Path("var"),
    as_json: JsonOption = False,
) -> None:
    """List what stopped and waits for an operator.

    `resume` lets one go on once its cause is mended, `refund` gives its credits back.

    With --json: a line for each.
    """
    found = run(_parked(service_address("generation", var), limit))
    if as_json:
        for one in found:
            print_json(one)
        return
    now = datetime.now(UTC)
    rows = [
        (
            one.generation.generation_id,
            one.generation.user_id,
            one.parked_at,
            duration((now - one.parked_at).total_seconds()),
            one.stage.lower(),
            one.generation.cost_credits,
            one.reason,
        )
        for one in found
    ]
    print_table(_PARKED_COLUMNS, rows)
    if not rows:
        print_note("nothing is parked")


@application.command()
def resume(
    generation_id: _IdArgument,
    at: Annotated[
        str, typer.Option(help="Stage to go on at; by default the one that it stopped in.")
    ] = "",
    var: VarOption = Path("var"),
    as_json: JsonOption = False,
) -> None:
    """Let a parked generation go on.

    With --json: one document.
    """
    _resume(generation_id, _read_stage(at), var, as_json)


@application.command()
def refund(
    generation_id: _IdArgument, var: VarOption = Path("var"), as_json: JsonOption = False
) -> None:
    """Give a parked generation's credits back.

    With --json: one document.
    """
    _resume(generation_id, Stage.REFUNDING, var, as_json)


def _resume(generation_id: str, stage: Stage | None, var: Path, as_json: bool) -> None:
    found = run(_go_on(service_address("generation", var), generation_id, stage))
    if as_json:
        print_json(found)
        return
    state = f"ended {found.status.lower()}" if found.is_final else f"goes on, {found.stage.lower()}"
    print_line(
        f"{found.generation_id} {state}; follow it with `reelworks generations show "
        f"{found.generation_id} --user {found.user_id}`"
    )


def _read_stage(text: str) -> Stage | None:
    if not text:
        return None
    stage = next((known for known in _STAGES if known == text.upper()), None)
    if stage is None:
        raise typer.BadParameter(
            f"{text} is none of {', '.join(known.lower() for known in _STAGES)}", param_hint="--at"
        )
    return stage


async def _stats(address: str) -> Stats:
    async with GenerationClient(address, certificates_of_operator()) as client:
        return await client.stats()


async def _parked(address: str, limit: int) -> list[Parked]:
    async with GenerationClient(address, certificates_of_operator()) as client:
        page = await client.parked(limit)
        return list(page.parked)


async def _go_on(address: str, generation_id: str, stage: Stage | None) -> Generation:
    async with GenerationClient(address, certificates_of_operator()) as client:
        return await client.resume(generation_id, stage)
