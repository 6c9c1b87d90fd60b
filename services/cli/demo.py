"""`reelworks demo`: shows the money of a video, and of jobs that fail, are canceled or refused."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from services.cli.credits import print_balance, print_transactions
from services.cli.following import follow, progress
from services.cli.making import copy_video
from services.cli.migrations import migrate
from services.cli.options import FailureExit, fail, run
from services.cli.output import print_error, print_line
from services.cli.stack import (
    DATABASE_SERVICES,
    FREE_PORTS,
    PROVIDER_VARIABLES,
    Stack,
    choose_ports,
    make_keys,
)
from services.cli.statement import find_faults, moved_by, net_credits
from services.cli.supervisor import ProcessFailed, Supervisor
from services.client.credits import Balance, CreditsClient, Transaction, TransactionType
from services.client.generations import (
    Generation,
    GenerationClient,
    GenerationErrorCode,
    Kind,
    Status,
    new_generation_id,
)
from services.runtime.errors import PreconditionFailed

__all__ = ["Expectation", "demo", "judge"]

MODEL = "t2v-14B"
RESOLUTION = "480p"
TAKEN_CREDITS = -95
"""Of the welcome bonus of 100, too little is left for a video."""
SCENE_S_MAX = 600.0
LOG_LINES_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Expectation:
    """What must be true when a scene is over."""

    status: Status
    """How the generation ended."""
    movements: tuple[TransactionType, ...]
    """What moved credits for it, in this order."""
    is_charged: bool
    """Whether the user paid its price; if not, nothing."""
    error: GenerationErrorCode | None = None
    """Why there is no video, None where there is one."""
    is_submitted: bool = True
    """Whether Replicate ever heard of it."""


@dataclass(frozen=True, slots=True)
class _Scene:
    """A part of the demonstration: one user who asks for one video."""

    title: str
    user_id: str
    prompt: str
    expectation: Expectation
    adjustment: int = 0
    """Credits added before, negative to take some away."""
    cancels: bool = False
    """Whether the user changes their mind once the provider has the job."""


_SCENES = (
    _Scene(
        "A video",
        "video",
        "a red fox running through fresh snow, cinematic",
        Expectation(
            Status.COMPLETED,
            (TransactionType.RESERVATION, TransactionType.DEDUCTION),
            is_charged=True,
        ),
    ),
    _Scene(
        "A job that fails: its credits come back",
        "failure",
        "a paper boat on a stormy sea at night [fail]",
        Expectation(
            Status.FAILED,
            (TransactionType.RESERVATION, TransactionType.REFUND),
            is_charged=False,
            error=GenerationErrorCode.MODEL_FAILED,
        ),
    ),
    _Scene(
        "A job that is canceled: its credits come back",
        "cancel",
        "a train that waits in a dark valley [stuck]",
        Expectation(
            Status.CANCELED,
            (TransactionType.RESERVATION, TransactionType.REFUND),
            is_charged=False,
            error=GenerationErrorCode.CANCELED,
        ),
        cancels=True,
    ),
    _Scene(
        "Too few credits: refused, and nothing is submitted",
        "refusal",
        "a lighthouse in the fog, slow aerial shot",
        Expectation(
            Status.FAILED,
            (),
            is_charged=False,
            error=GenerationErrorCode.INSUFFICIENT_CREDITS,
            is_submitted=False,
        ),
        adjustment=TAKEN_CREDITS,
    ),
)


def demo(
    speed: Annotated[
        float, typer.Option(min=0.01, max=1000, help="How many times faster than Replicate.")
    ] = 40,
    output: Annotated[Path, typer.Option(dir_okay=False, help="Where to put the video.")] = Path(
        "reelworks-demo.mp4"
    ),
) -> None:
    """Make a video on a stack of its own, and check the money.

    Besides, a job fails, one is canceled, and one is refused for want of credits.

    Real services on free ports work in a temporary folder, with the simulator in Replicate's
    place. Each one's money trail is read from its statement, and every sum computed again.

    Exit codes: 0 only if all is right, else 1.
    """
    if not output.parent.is_dir():
        raise typer.BadParameter(f"{output.parent} is no folder", param_hint="--output")
    with tempfile.TemporaryDirectory(prefix="reelworks-demo-") as folder:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("REELWORKS_") and name not in PROVIDER_VARIABLES
        }
        ports = choose_ports(FREE_PORTS, ())
        stack = Stack(Path(folder), ports, speed, inherited)
        log: list[str] = []
        try:
            faults = run(_play(stack, output, lambda name, line: log.append(f"{name} | {line}")))
        except ProcessFailed as error:
            _show_end(log)
            fail(str(error))
        except FailureExit:
            _show_end(log)
            raise
    if faults:
        for fault in faults:
            print_error(fault)
        fail(f"{len(faults)} things are wrong")
    print_line("All sums are right.", style="bold green")


def judge(
    expectation: Expectation,
    generation: Generation,
    transactions: Sequence[Transaction],
    balance: Balance,
) -> list[str]:
    """Returns what is not as it must be, given a user's whole record, oldest first."""
    faults = find_faults(transactions, balance)
    own = moved_by(transactions, generation.generation_id)
    price = generation.cost_credits if expectation.is_charged else 0
    facts: tuple[tuple[str, object, object], ...] = (
        ("status", generation.status, expectation.status),
        ("error", generation.error and generation.error.code, expectation.error),
        ("movements", tuple(t.type for t in own), expectation.movements),
        ("credits moved", net_credits(own), -price),
        ("charged credits", generation.charged_credits, price),
        ("credits still reserved", balance.reserved_credits, 0),
        ("submission", bool(generation.job_id or generation.attempt), expectation.is_submitted),
        ("video", bool(generation.video_uri), expectation.error is None),
    )
    faults += [f"{what}: {said}, not {right}" for what, said, right in facts if said != right]
    if generation.cost_credits <= 0:
        faults.append(f"the price is {generation.cost_credits}")
    return faults


def _show_end(log: Sequence[str]) -> None:
    for line in log[-LOG_LINES_SHOWN:]:
        print_line(line)


async def _play(stack: Stack, output: Path, report: Callable[[str, str], None]) -> list[str]:
    """Plays all scenes and returns what went wrong in them."""
    print_line(f"starting the services, on free ports, with their data in {stack.var} …")
    make_keys(stack.var)
    for migration in await migrate(stack, DATABASE_SERVICES):
        if not migration.succeeded:
            report(migration.service, migration.log)
            raise ProcessFailed(
                f"the database of {migration.service} cannot be migrated; the lines above say why"
            )
    faults = []
    async with (
        Supervisor(report).running(stack.stages()),
        CreditsClient(stack.addresses["credits"]) as credits_client,
        GenerationClient(stack.addresses["generation"]) as generations,
    ):
        for number, scene in enumerate(_SCENES, start=1):
            print_line()
            print_line(f"{number}. {scene.title}", style="bold")
            print_line(f'   "{scene.prompt}", {MODEL}, {RESOLUTION}')
            try:
                async with asyncio.timeout(SCENE_S_MAX):
                    found = await _play_scene(scene, credits_client, generations, output)
            except TimeoutError:
                found = [f"it did not end within {SCENE_S_MAX:.0f} s"]
            faults += [f"{scene.title}: {fault}" for fault in found]
        print_line()
    return faults


async def _play_scene(
    scene: _Scene, credits_client: CreditsClient, generations: GenerationClient, output: Path
) -> list[str]:
    """Plays a scene, prints its money trail and returns what went wrong."""
    user_id = scene.user_id
    await credits_client.open_account(user_id)
    if scene.adjustment:
        await credits_client.add_credits(
            user_id,
            scene.adjustment,
            TransactionType.ADJUSTMENT,
            "demo-adjustment",
            "leaves too little for a video",
        )
    generation = await _make(scene, generations)
    balance = await credits_client.get_balance(user_id)
    transactions = [transaction async for transaction in credits_client.transactions(user_id)][::-1]
    print_transactions(transactions, in_full=False)
    print_balance(balance)
    faults = judge(scene.expectation, generation, transactions, balance)
    if generation.video_uri:
        copy_video(generation.video_uri, output)
        faults += _look_at(output)
    for fault in faults:
        print_error(fault)
    return faults


async def _make(scene: _Scene, generations: GenerationClient) -> Generation:
    """Returns the generation of a scene at its end, whether it was accepted or refused."""
    generation_id = new_generation_id()
    try:
        generation = await generations.create(
            scene.user_id,
            Kind.TEXT_TO_VIDEO,
            MODEL,
            RESOLUTION,
            scene.prompt,
            generation_id=generation_id,
        )
    except PreconditionFailed as error:
        print_line(f"   refused: {error.message}")
        return await generations.get(scene.user_id, generation_id)
    if scene.cancels:
        generation = await _cancel(generations, generation)
    with progress() as show:
        generation = await follow(generations, generation, show)
    if generation.error is not None:
        print_line(f"   {generation.error.code}: {generation.error.message}")
    return generation


async def _cancel(generations: GenerationClient, generation: Generation) -> Generation:
    """Cancels a generation as soon as the provider has it."""
    name = generation.user_id, generation.generation_id
    changes = generations.watch(generation.user_id, [generation.generation_id])
    async with contextlib.aclosing(changes):
        async for change in changes:
            if change.status is not Status.QUEUED:
                break
    print_line("   canceling it, while Replicate works on it")
    return await generations.cancel(*name)


def _look_at(video: Path) -> list[str]:
    """Shows the file that was made and returns what is wrong with it."""
    with video.open("rb") as file:
        # An MP4 begins with a box of this type, after its length in 4 bytes.
        is_mp4 = file.read(8)[4:] == b"ftyp"
    print_line(f"   video: {video}, {video.stat().st_size} bytes", style="bold green")
    return [] if is_mp4 else [f"{video} is no MP4"]
