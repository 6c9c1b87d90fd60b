"""`reelworks generations …`: what was asked for, how far it is, and what to do about it."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from services.cli.credits import print_balance
from services.cli.durations import time_left
from services.cli.lists import AllOption, LimitOption, Newest, page_size
from services.cli.making import Making, make_video, output_path
from services.cli.options import (
    FailureExit,
    ForceOption,
    JsonOption,
    UserOption,
    VarOption,
    certificates_of_operator,
    check_text,
    fail,
    run,
)
from services.cli.ordering import read_kind
from services.cli.output import (
    Column,
    plain,
    print_error,
    print_json,
    print_line,
    print_table,
)
from services.cli.up_file import service_address
from services.client.credits import Balance, CreditsClient
from services.client.generations import (
    DeletedGenerations,
    Eta,
    Generation,
    GenerationClient,
    GenerationError,
    Kind,
    Stage,
    Status,
    new_generation_id,
)

__all__ = [
    "application",
    "cancel",
    "delete",
    "list_generations",
    "print_generation",
    "retry",
    "show",
]

application = typer.Typer(help="Videos made and in the making.", no_args_is_help=True)

DELETED_AT_ONCE_MAX = 100

_IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Its id.")]

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
    kind: Annotated[str, typer.Option(help="Only those: text-to-video or image-to-video.")] = "",
    query: Annotated[
        str, typer.Option(callback=check_text, help="Only those whose prompt contains this.")
    ] = "",
    limit: LimitOption = 50,
    everything: AllOption = False,
    var: VarOption = Path("var"),
    as_json: JsonOption = False,
) -> None:
    """List a user's generations, newest first.

    Refused and deleted ones are left out.

    With --json: a line for each generation.
    """
    address, shown = service_address("generation", var), None if everything else limit
    found = (address, user, shown, _read_status(status), read_kind(kind), query)
    run(_list(*found, as_json=as_json), user)


@application.command()
def show(
    generation_id: _IdArgument,
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


@application.command()
def cancel(
    generation_id: _IdArgument,
    user: UserOption = "demo",
    var: VarOption = Path("var"),
    as_json: JsonOption = False,
) -> None:
    """Cancel a generation and get its credits back.

    That is possible until its video exists; `show` says how many credits it gives back. The exit
    code is 1 if the video came first.

    With --json: one document.
    """
    addresses = service_address("generation", var), service_address("credits", var)
    found, balance = run(_cancel(*addresses, user, generation_id), user)
    if as_json:
        print_json(found)
    if found.status is Status.COMPLETED:
        fail(f"the video was made before, and {found.charged_credits} credits are charged for it")
    if as_json:
        return
    print_line(_cancel_words(found))
    print_balance(balance)


@application.command()
def retry(
    generation_id: _IdArgument,
    keep_seed: Annotated[
        bool, typer.Option("--keep-seed", help="Take the seed that it last ran with.")
    ] = False,
    user: UserOption = "demo",
    output: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Where to put the video; default <new id>.mp4."),
    ] = None,
    force: ForceOption = False,
    new_id: Annotated[
        str, typer.Option(help="Id of the new generation, to repeat a call; by default a new one.")
    ] = "",
    var: VarOption = Path("var"),
    as_json: JsonOption = False,
) -> None:
    """Make a failed or canceled video again.

    It is a new generation, at today's price.

    With --json: one document {generation, transactions, balance, file}, when all is over.
    """
    key = new_id or new_generation_id()
    path = output_path(output, key, force=force)
    making = Making(
        user,
        key,
        "--new-id",
        lambda client: client.retry(
            user, generation_id, new_generation_id=key, keep_seed=keep_seed
        ),
    )
    make_video(making, path, var, as_json=as_json)


@application.command()
def delete(
    generation_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Their ids.")],
    user: UserOption = "demo",
    var: VarOption = Path("var"),
    as_json: JsonOption = False,
) -> None:
    """Delete ended generations and their videos.

    What is deleted cannot be had back. The exit code is 1 if any of them is not deleted.

    With --json: one document {deleted_ids, unfinished_ids, unknown_ids}.
    """
    if len(generation_ids) > DELETED_AT_ONCE_MAX:
        raise typer.BadParameter(f"at most {DELETED_AT_ONCE_MAX} at once", param_hint="ID...")
    done = run(_delete(service_address("generation", var), user, generation_ids), user)
    if as_json:
        print_json(done)
    else:
        print_line(f"deleted: {len(done.deleted_ids)}")
        for name in done.unfinished_ids:
            print_error(f"{name} has not ended; cancel it first: `reelworks generations cancel`")
        for name in done.unknown_ids:
            print_error(f"{user} has no generation {name}")
    if done.unfinished_ids or done.unknown_ids:
        raise FailureExit


def print_generation(generation: Generation) -> None:
    """Prints each known fact about a generation in a line."""
    for field in fields(generation):
        value = getattr(generation, field.name)
        if value not in (None, ""):
            print_line(f"{field.name.replace('_', ' '):<21} {_fact(value)}")


def _cancel_words(generation: Generation) -> str:
    price = generation.cost_credits
    if generation.is_final:
        return f"canceled: {price - generation.charged_credits} of {price} credits are given back"
    words = f"{generation.cancel_refund_credits or 0} of {price} credits will be given back"
    if generation.stage is Stage.REFUNDING:
        return f"canceled: {words}"
    return f"being canceled: {words}, unless the video comes first"


def _fact(value: object) -> str:
    match value:
        case Kind() | Status() | Stage():
            return value.lower().replace("_", "-")
        case datetime():
            return f"{plain(value)} UTC"
        case GenerationError():
            return f"{value.code}: {value.message}"
        case Eta():
            left = time_left(value, datetime.now(UTC))
            return f"{left} ({plain(value.likely_at)} to {plain(value.latest_at)} UTC)"
        case _:
            return plain(value)


def _read_status(text: str) -> Status | None:
    if not text:
        return None
    status = next((known for known in Status if known == text.upper()), Status.UNKNOWN)
    if status is Status.UNKNOWN:
        names = ", ".join(known.lower() for known in Status if known is not Status.UNKNOWN)
        raise typer.BadParameter(f"{text} is none of {names}", param_hint="--status")
    return status


async def _list(
    address: str,
    user_id: str,
    limit: int | None,
    status: Status | None,
    kind: Kind | None,
    query: str,
    *,
    as_json: bool,
) -> None:
    async with GenerationClient(address, certificates_of_operator()) as client:
        history = client.history(user_id, page_size(limit), status=status, kind=kind, query=query)
        found = Newest(history, limit)
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
    async with GenerationClient(address, certificates_of_operator()) as client:
        return await client.get(user_id, generation_id)


async def _cancel(
    address: str, credits_address: str, user_id: str, generation_id: str
) -> tuple[Generation, Balance]:
    async with (
        GenerationClient(address, certificates_of_operator()) as client,
        CreditsClient(credits_address, certificates_of_operator()) as ledger,
    ):
        canceled = await client.cancel(user_id, generation_id)
        return canceled, await ledger.get_balance(user_id)


async def _delete(address: str, user_id: str, generation_ids: Sequence[str]) -> DeletedGenerations:
    async with GenerationClient(address, certificates_of_operator()) as client:
        return await client.delete(user_id, generation_ids)
