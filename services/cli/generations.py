"""`reelworks generations …`: what was asked for, and how far it is."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from services.cli.lists import AllOption, LimitOption, Newest, page_size
from services.cli.options import JsonOption, UserOption, VarOption, run
from services.cli.output import Column, plain, print_json, print_line, print_table
from services.cli.up_file import service_address
from services.client.generations import Generation, GenerationClient, Status

__all__ = ["application", "list_generations", "print_generation", "show"]

application = typer.Typer(help="Videos made and in the making.", no_args_is_help=True)

_COLUMNS = (
    Column("GENERATION"),
    Column("CREATED (UTC)"),
    Column("STATUS"),
    Column("DONE", is_number=True),
    Column("MODEL"),
    Column("RESOLUTION"),
    Column("CHARGED", is_number=True),
    Column("PROMPT", folds=True),
)


@application.command("list")
def list_generations(
    user: UserOption = "demo",
    status: Annotated[
        str,
        typer.Option(help="Only those: queued, processing, completed, failed, or canceled."),
    ] = "",
    limit: LimitOption = 50,
    everything: AllOption = False,
    var: VarOption = Path("var"),
    as_json: JsonOption = False,
) -> None:
    """List the generations of a user, newest first; refused ones are left out.

    With --json: a line for each generation.
    """
    wanted = None
    if status:
        wanted = next((known for known in Status if known == status.upper()), Status.UNKNOWN)
        if wanted is Status.UNKNOWN:
            names = ", ".join(known.lower() for known in Status if known is not Status.UNKNOWN)
            raise typer.BadParameter(f"{status} is none of {names}", param_hint="--status")
    address, shown = service_address("generation", var), None if everything else limit
    run(_list(address, user, shown, wanted, as_json=as_json), user)


@application.command()
def show(
    generation_id: Annotated[str, typer.Argument(metavar="ID", help="Its id.")],
    user: UserOption = "demo",
    var: VarOption = Path("var"),
    as_json: JsonOption = False,
) -> None:
    """Show everything about a generation.

    With --json: one document.
    """
    found = run(_get(service_address("generation", var), user, generation_id), user)
    if as_json:
        print_json(found)
    else:
        print_generation(found)


def print_generation(generation: Generation) -> None:
    """Prints each known fact about a generation in a line."""
    for field in fields(generation):
        value = getattr(generation, field.name)
        if field.name == "error" and value is not None:
            value = f"{value.code}: {value.message}"
        if value not in (None, ""):
            print_line(f"{field.name.replace('_', ' '):<17} {plain(value)}")


async def _list(
    address: str, user_id: str, limit: int | None, status: Status | None, *, as_json: bool
) -> None:
    async with GenerationClient(address) as client:
        found = Newest(client.history(user_id, page_size(limit), status=status), limit)
        if as_json:
            async for generation in found:
                print_json(generation)
        else:
            print_table(_COLUMNS, [_row_of(generation) async for generation in found])
        found.note()


def _row_of(generation: Generation) -> Sequence[object]:
    return (
        generation.generation_id,
        generation.created_at,
        generation.status.lower(),
        f"{generation.progress_percent} %",
        generation.model,
        generation.resolution,
        generation.charged_credits,
        generation.prompt,
    )


async def _get(address: str, user_id: str, generation_id: str) -> Generation:
    async with GenerationClient(address) as client:
        return await client.get(user_id, generation_id)
