"""`reelworks generate`: makes one video and shows what it cost."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from services.cli.durations import duration, time_left
from services.cli.making import Making, make_video, output_path
from services.cli.options import (
    ForceOption,
    JsonOption,
    UserOption,
    VarOption,
    certificates_of_operator,
    check_number,
    check_text,
    run,
)
from services.cli.ordering import Order, ask_price, create, read_image, read_kind
from services.cli.output import print_json, print_line, print_note
from services.cli.up_file import service_address
from services.client.credits import CreditsClient
from services.client.generations import GenerationClient, Quote, new_generation_id

__all__ = ["generate", "quote_lines"]


def generate(
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", callback=check_text, help="What the video shows.")
    ],
    model: Annotated[
        str,
        typer.Option(help="As `reelworks models` lists; t2v-14B, or i2v-14B with an image."),
    ] = "",
    resolution: Annotated[str, typer.Option(help="480p or 720p.")] = "480p",
    kind: Annotated[
        str,
        typer.Option(help="text-to-video or image-to-video; by default what the model makes."),
    ] = "",
    image: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="File of the image to start from: JPEG, PNG or WebP."),
    ] = None,
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
    force: ForceOption = False,
    quote: Annotated[
        bool, typer.Option("--quote", help="Only say what it would cost, and how long it takes.")
    ] = False,
    generation_id: Annotated[
        str, typer.Option(help="Id of the generation, to repeat a call; by default a new one.")
    ] = "",
    var: VarOption = Path("var"),
    as_json: JsonOption = False,
) -> None:
    """Make a video and show what it cost. Opens the account of the user if it is new.

    With --json: one document {generation, transactions, balance, file}, when all is over; with
    --quote besides, the quote.

    Exit codes: 0 when there is a video, 1 when there is none, 2 for wrong usage, whoever finds it
    wrong, 130 after Ctrl-C.
    """
    order = Order(
        user_id=user,
        kind=read_kind(kind),
        model=model,
        resolution=resolution,
        prompt=prompt,
        negative_prompt=negative_prompt,
        image_uri=image_uri,
        image=read_image(image, image_uri),
        aspect_ratio=aspect_ratio,
        seed=seed,
    )
    if quote:
        _show_quote(order, var, as_json)
        return
    key = generation_id or new_generation_id()
    path = output_path(output, key, force=force)
    making = Making(user, key, "--generation-id", lambda client: create(client, order, key))
    make_video(making, path, var, as_json=as_json)


def _show_quote(order: Order, var: Path, as_json: bool) -> None:
    addresses = service_address("credits", var), service_address("generation", var)
    found = run(_quote(order, *addresses), order.user_id)
    if as_json:
        print_json(found)
        return
    for line in quote_lines(found, datetime.now(UTC)):
        print_line(line)
    if found.available_after_credits < 0:
        missing = -found.available_after_credits
        print_note(f"add some with `reelworks credits grant {missing} --user {order.user_id}`")


def quote_lines(quote: Quote, now: datetime) -> list[str]:
    """Returns what a quote says at `now`, a line for each fact."""
    missing = -quote.available_after_credits
    left = f"{missing} too few" if missing > 0 else f"{quote.available_after_credits} afterwards"
    held = duration((quote.expires_at - now).total_seconds())
    lines = [
        f"price    {quote.cost_credits} credits, held for {held}",
        f"balance  {quote.available_credits} credits available, {left}",
        f"queue    {quote.queue_ahead or 'nothing'} before it",
    ]
    if quote.eta is not None:
        lines.append(f"ready    {time_left(quote.eta, now)}")
    return lines


async def _quote(order: Order, credits_address: str, address: str) -> Quote:
    async with (
        CreditsClient(credits_address, certificates_of_operator()) as credits_client,
        GenerationClient(address, certificates_of_operator()) as generations,
    ):
        # As for a video, or what a new user would have could not be said.
        await credits_client.open_account(order.user_id)
        return await ask_price(generations, order)
