"""Makes a video to its end: follows it, fetches it, and shows what it cost."""

import contextlib
import shutil
import urllib.parse
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import typer

from services.cli.credits import print_balance, print_transactions
from services.cli.following import follow, progress, silence
from services.cli.options import INTERRUPTED, FailureExit, certificates_of_operator, fail, run
from services.cli.output import print_error, print_json, print_line
from services.cli.statement import net_credits
from services.cli.up_file import service_address
from services.client.credits import Balance, CreditsClient, Transaction, TransactionType
from services.client.generations import Generation, GenerationClient, Status
from services.runtime.errors import DeadlineExceeded, PreconditionFailed, Unavailable

__all__ = ["Making", "copy_video", "make_video", "output_path"]

DOWNLOAD_S_MAX = 60.0
"""Without a byte, a download ends."""

_ON_RECORD = ("INSUFFICIENT_CREDITS", "ACCOUNT_NOT_FOUND")


@dataclass(frozen=True, slots=True)
class Making:
    """A video that is to be made."""

    user_id: str
    """Whose it is."""
    generation_id: str
    """The id that it gets."""
    id_option: str
    """The option that repeats the command with this id."""
    start: Callable[[GenerationClient], Awaitable[Generation]]
    """Makes the call that begins it."""


@dataclass(frozen=True, slots=True)
class _Receipt:
    generation: Generation
    transactions: list[Transaction]
    balance: Balance


def output_path(output: Path | None, generation_id: str, *, force: bool) -> Path:
    """Returns where to put a video; refuses a folder that is not there.

    Also a file that is there, unless `force` is set. One that has the generation's name is that
    video, from an earlier call.
    """
    path = output or Path(f"{generation_id}.mp4")
    if not path.parent.is_dir():
        raise typer.BadParameter(f"{path.parent} is no folder", param_hint="--output")
    if output is not None and output.exists() and not force:
        raise typer.BadParameter(
            f"{output} is there already; choose another, or add --force to write over it",
            param_hint="--output",
        )
    return path


def make_video(making: Making, path: Path, var: Path, *, as_json: bool) -> None:
    """Makes a video, puts it at `path` and prints what it cost.

    Ends the command with exit code 1 if there is no video.
    """
    receipt = _run(making, var, as_json)
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


def copy_video(video_uri: str, path: Path) -> None:
    """Copies a video to `path`, from this machine (`file://…`) or from the web.

    Raises OSError if that fails.
    """
    parts = urllib.parse.urlsplit(video_uri)
    match parts.scheme:
        case "file":
            shutil.copyfile(urllib.request.url2pathname(parts.path), path)
        case "http" | "https":
            with (
                urllib.request.urlopen(video_uri, timeout=DOWNLOAD_S_MAX) as video,  # noqa: S310
                path.open("wb") as file,
            ):
                shutil.copyfileobj(video, file)
        case _:
            raise OSError(f"{video_uri} is no address of a video")


def _run(making: Making, var: Path, quiet: bool) -> _Receipt:
    """Makes the video and returns what came of it; says how to go on if that is interrupted."""
    try:
        return run(_make(making, var, quiet), making.user_id)
    except typer.Exit as stopped:
        if stopped.exit_code == INTERRUPTED:
            name = f"{making.generation_id} --user {making.user_id}"
            print_error(
                "interrupted; if the generation was created, it goes on: see it with "
                f"`reelworks generations show {name}`, "
                f"end it with `reelworks generations cancel {name}`"
            )
        raise


async def _make(making: Making, var: Path, quiet: bool) -> _Receipt:
    async with (
        CreditsClient(
            service_address("credits", var), certificates_of_operator()
        ) as credits_client,
        GenerationClient(
            service_address("generation", var), certificates_of_operator()
        ) as generations,
    ):
        with contextlib.nullcontext(silence) if quiet else progress() as show:
            await credits_client.open_account(making.user_id)
            generation = await follow(generations, await _start(generations, making), show)
        return _Receipt(
            generation,
            await _read_statement(credits_client, making.user_id, making.generation_id),
            await credits_client.get_balance(making.user_id),
        )


async def _start(generations: GenerationClient, making: Making) -> Generation:
    try:
        return await making.start(generations)
    except (Unavailable, DeadlineExceeded) as error:
        # The outcome is open, and the same id makes sure of one video at most.
        advice = f"repeat the command with {making.id_option} {making.generation_id}"
        error.message = f"{error.message.rstrip('.')}; {advice}"
        raise
    except PreconditionFailed as error:
        if error.reason in _ON_RECORD:
            record = f"the attempt is on record as {making.generation_id}"
            error.message = f"{error.message.rstrip('.')}; {record}"
        raise


async def _read_statement(
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


def _save(generation: Generation, path: Path) -> Path | None:
    """Returns the copy of the video, None if there is no video."""
    if generation.status is not Status.COMPLETED:
        return None
    if not generation.video_uri:
        fail("the video was made, and removed from storage since")
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
