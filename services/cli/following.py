"""Follows a generation to its end and shows how far it is."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from services.cli.durations import time_left
from services.cli.output import print_line
from services.client.generations import Generation, GenerationClient, Stage
from services.runtime.errors import ServiceError

__all__ = ["Show", "follow", "progress", "silence"]

STEP_PERCENT = 10
"""In a pipe, progress is told in steps of this size."""
QUEUE_S = 2.0
"""Between two looks at the place of what waits: a place changes without its generation."""

Show = Callable[[Generation], None]
"""Shows a generation as it is now."""

_WORDS = {
    Stage.RESERVING: "reserving credits",
    Stage.READY: "waiting for its turn",
    Stage.SUBMITTING: "submitting",
    Stage.RUNNING: "making the video",
    Stage.CANCELING: "canceling",
    Stage.ARCHIVING: "saving the video",
    Stage.COMMITTING: "paying",
    Stage.REFUNDING: "refunding",
    Stage.PARKED: "waiting for an operator",
    Stage.COMPLETED: "completed",
    Stage.FAILED: "failed",
    Stage.CANCELED: "canceled",
    Stage.REJECTED: "refused",
}


async def follow(client: GenerationClient, generation: Generation, show: Show) -> Generation:
    """Returns a generation at its end, after showing each of its changes."""
    newest = generation

    def tell(change: Generation) -> None:
        nonlocal newest
        if change.version >= newest.version:
            newest = change
            show(change)

    async def look_at_queue() -> None:
        while True:
            await asyncio.sleep(QUEUE_S)
            if newest.queue_position is not None:
                # Of a service that is away, the watch tells.
                with contextlib.suppress(ServiceError):
                    tell(await client.get(newest.user_id, newest.generation_id))

    show(generation)
    if generation.is_final:
        return generation
    looking = asyncio.create_task(look_at_queue())
    try:
        return await _watch_to_end(client, generation, tell)
    finally:
        looking.cancel()
        await asyncio.wait([looking])


@contextlib.contextmanager
def progress() -> Iterator[Show]:
    """Yields what shows generations: a moving bar on a terminal, lines in a pipe."""
    if not Console().is_terminal:
        yield _Lines()
        return
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<20}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[ready]}", style="dim"),
    )
    with bar:
        task = bar.add_task("creating", total=100, ready="")
        yield lambda generation: bar.update(
            task,
            description=_words(generation),
            completed=generation.progress_percent,
            ready=_ready(generation),
        )


def silence(_: Generation) -> None:
    """Shows nothing."""


class _Lines:
    """Prints a line whenever the stage or the place changes, or enough of the work is done."""

    def __init__(self) -> None:
        self._told: tuple[str, int] | None = None

    def __call__(self, generation: Generation) -> None:
        state = _words(generation), generation.progress_percent // STEP_PERCENT
        if state != self._told:
            self._told = state
            parts = (_words(generation), _ready(generation))
            text = ", ".join(part for part in parts if part)
            print_line(f"{generation.progress_percent:>3} %  {text}")


async def _watch_to_end(client: GenerationClient, generation: Generation, tell: Show) -> Generation:
    changes = client.watch(generation.user_id, [generation.generation_id])
    async with contextlib.aclosing(changes):
        async for change in changes:
            if change.generation_id != generation.generation_id:
                continue  # Another one of the same user.
            tell(change)
            if change.is_final:
                return change
    raise AssertionError("a watch has no end of its own")


def _words(generation: Generation) -> str:
    if generation.queue_position is not None:
        return f"waiting, place {generation.queue_position}"
    # The provider has a queue of its own behind ours.
    if generation.stage is Stage.RUNNING and generation.started_at is None:
        return "in Replicate's queue"
    return _WORDS.get(generation.stage, generation.status.lower())


def _ready(generation: Generation) -> str:
    return f"ready {time_left(generation.eta, datetime.now(UTC))}" if generation.eta else ""
