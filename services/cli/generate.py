"""`reelworks generate`: makes one video and shows what it cost."""

import contextlib
import shutil
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from services.cli.credits import print_balance, print_transactions
from services.cli.following import follow, progress, silence
from services.cli.options import (
    INTERRUPTED,
    FailureExit,
    JsonOption,
    UserOption,
    VarOption,
    check_number,
    check_text,
    fail,
    run,
)
from services.cli.output import print_error, print_json, print_line
from services.cli.statement import net_credits
from services.cli.up_file import service_address
from services.client.credits import Balance, CreditsClient, Transaction, TransactionType
from services.client.generations import (
    Generation,
    GenerationClient,
    Kind,
    Status,
    new_generation_id,
)
from services.runtime.errors import DeadlineExceeded, PreconditionFailed, Unavailable

__all__ = ["copy_video", "generate", "read_statement"]


@dataclass(frozen=True, slots=True)
class _Order:
    """What was asked for on the command line."""

    user_id: str
    generation_id: str
    kind: Kind | None
    model: str
    resolution: str
    prompt: str
    negative_prompt: str
    image_uri: str
    aspect_ratio: str
    seed: int | None


@dataclass(frozen=True, slots=True)
class _Receipt:
    """What came of it."""

    generation: Generation
    transactions: list[Transaction]
    balance: Balance


def generate(
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", callback=check_text, help="What the video shows.")
    ],
    model: Annotated[str, typer.Option(help="As `reelworks models` lists.")] = "t2v-14B",
    resolution: Annotated[str, typer.Option(help="480p or 720p.")] = "480p",
    kind: Annotated[
        str,
        typer.Option(help="text-to-video or image-to-video; by default what the model makes."),
    ] = "",
    image_uri: Annotated[
        str, typer.Option(callback=check_text, help="https address of the image to start from.")
    ] = "",
    negative_prompt: Annotated[
        str, typer.Option(callback=check_text, help="What the video shall not show.")
    ] = "",
    aspect_ratio: Annotated[str, typer.Option(help="16:9 or 9:16.")] = "",
    seed: Annotated[
        int | None, typer.Option(callback=check_number, help="Seed of the model's randomness.")
    ] = None,
    user: UserOption = "demo",
    output: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Where to put the video; default <generation id>.mp4."),
    ] = None,
    generation_id: Annotated[
        str, typer.Option(help="Id of the generation, to repeat a call; by default a new one.")
    ] = "",
    var: VarOption = Path("var"),
    as_json: JsonOption = False,
) -> None:
    """Make a video and show what it cost. Opens the account of the user if it is new.

    With --json: one document {generation, transactions, balance, file}, when all is over.

    Exit codes: 0 when there is a video, 1 when there is none, 2 for wrong usage, 130 after Ctrl-C.
    """
    order = _Order(
        user_id=user,
        generation_id=generation_id or new_generation_id(),
        kind=_read_kind(kind),
        model=model,
        resolution=resolution,
        prompt=prompt,
        negative_prompt=negative_prompt,
        image_uri=image_uri,
        aspect_ratio=aspect_ratio,
        seed=seed,
    )
    path = output or Path(f"{order.generation_id}.mp4")
    if not path.parent.is_dir():
        raise typer.BadParameter(f"{path.parent} is no folder", param_hint="--output")
    receipt = _follow_order(order, var, as_json)
    file = _save(receipt.generation, path)
    if as_json:
        print_json(
            {
                "generation": receipt.generation,
                "transactions": receipt.transactions,
                "balance": receipt.balance,
                "file": file and str(file),
            }
        )
    else:
        _print_receipt(receipt, file)
    if file is None:
        raise FailureExit


async def read_statement(
    client: CreditsClient, user_id: str, reservation_id: str
) -> list[Transaction]:
    """Returns the transactions of one reservation, oldest first.

    Reads the user's statement back to the one that made the reservation.
    """
    found: list[Transaction] = []
    async with contextlib.aclosing(client.transactions(user_id)) as statement:
        async for transaction in statement:
            if transaction.reservation_id != reservation_id:
                continue
            found.append(transaction)
            if transaction.type is TransactionType.RESERVATION:
                break
    return found[::-1]


def copy_video(video_uri: str, path: Path) -> None:
    """Copies a video that lies on this machine (`file://…`) to `path`.

    Raises OSError if that fails, also for an address elsewhere.
    """
    parts = urllib.parse.urlsplit(video_uri)
    if parts.scheme != "file":
        raise OSError(f"{video_uri} is not on this machine")
    shutil.copyfile(urllib.request.url2pathname(parts.path), path)


def _read_kind(text: str) -> Kind | None:
    if not text:
        return None
    kind = next((k for k in Kind if k == text.upper().replace("-", "_")), Kind.UNKNOWN)
    if kind is Kind.UNKNOWN:
        raise typer.BadParameter(
            f"{text} is none of text-to-video, image-to-video", param_hint="--kind"
        )
    return kind


def _follow_order(order: _Order, var: Path, quiet: bool) -> _Receipt:
    """Makes the video and returns what came of it; says how to go on if that is interrupted."""
    try:
        return run(_make(order, var, quiet), order.user_id)
    except typer.Exit as stopped:
        if stopped.exit_code == INTERRUPTED:
            print_error(
                "interrupted; if the generation was created, it goes on: see it with "
                f"`reelworks generations show {order.generation_id} --user {order.user_id}`"
            )
        raise


async def _make(order: _Order, var: Path, quiet: bool) -> _Receipt:
    async with (
        CreditsClient(service_address("credits", var)) as credits_client,
        GenerationClient(service_address("generation", var)) as generations,
    ):
        with contextlib.nullcontext(silence) if quiet else progress() as show:
            await credits_client.open_account(order.user_id)
            generation = await follow(generations, await _create(generations, order), show)
        return _Receipt(
            generation,
            await read_statement(credits_client, order.user_id, order.generation_id),
            await credits_client.get_balance(order.user_id),
        )


async def _create(generations: GenerationClient, order: _Order) -> Generation:
    kind = order.kind
    if kind is None:
        known = await generations.list_models()
        # For a model that there is not, any kind will do: the service says so.
        kind = next((m.kind for m in known if m.model == order.model), Kind.TEXT_TO_VIDEO)
    try:
        return await generations.create(
            order.user_id,
            kind,
            order.model,
            order.resolution,
            order.prompt,
            negative_prompt=order.negative_prompt,
            image_uri=order.image_uri,
            aspect_ratio=order.aspect_ratio,
            seed=order.seed,
            generation_id=order.generation_id,
        )
    except (Unavailable, DeadlineExceeded) as error:
        # The outcome is open, and the same id makes sure of one video at most.
        advice = f"repeat the command with --generation-id {order.generation_id}"
        error.message = f"{error.message.rstrip('.')}; {advice}"
        raise
    except PreconditionFailed as error:
        record = f"the attempt is on record as {order.generation_id}"
        error.message = f"{error.message.rstrip('.')}; {record}"
        raise


def _save(generation: Generation, path: Path) -> Path | None:
    """Returns the copy of the video, None if there is no video."""
    if generation.status is not Status.COMPLETED:
        return None
    try:
        copy_video(generation.video_uri, path)
    except OSError as error:
        fail(f"the video is at {generation.video_uri} but was not copied to {path}: {error}")
    return path


def _print_receipt(receipt: _Receipt, file: Path | None) -> None:
    generation = receipt.generation
    print_line()
    print_transactions(receipt.transactions, in_full=False)
    charged = -net_credits(receipt.transactions)
    print_line(f"charged {charged} credits for generation {generation.generation_id}")
    print_balance(receipt.balance)
    if file is not None:
        print_line(f"video: {file}", style="bold green")
    elif generation.error is not None:
        print_error(f"{generation.error.code}: {generation.error.message}")
    else:
        print_error(f"the generation ended {generation.status.lower()}")
