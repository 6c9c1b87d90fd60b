"""Follows a generation to its end and shows how far it is."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from services.cli.output import print_line
from services.client.generations import Generation, GenerationClient, Stage

__all__ = ["Show", "follow", "progress", "silence"]

STEP_PERCENT = 10
"""In a pipe, progress is told in steps of this size."""

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
    show(generation)
    if generation.is_final:
        return generation
    changes = client.watch(generation.user_id, [generation.generation_id])
    async with contextlib.aclosing(changes):
        async for change in changes:
            if change.generation_id != generation.generation_id:
                continue  # Another one of the same user.
            show(change)
            if change.is_final:
                return change
    raise AssertionError("a watch has no end of its own")


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
    )
    with bar:
        task = bar.add_task("creating", total=100)
        yield lambda generation: bar.update(
            task, description=_words(generation), completed=generation.progress_percent
        )


def silence(_: Generation) -> None:
    """Shows nothing."""


class _Lines:
    """Prints a line whenever the stage changes, or enough of the work is done."""

    def __init__(self) -> None:
        self._told: tuple[Stage, int] | None = None

    def __call__(self, generation: Generation) -> None:
        state = generation.stage, generation.progress_percent // STEP_PERCENT
        if state != self._told:
            self._told = state
            print_line(f"{generation.progress_percent:>3} %  {_words(generation)}")


def _words(generation: Generation) -> str:
    return _WORDS.get(generation.stage, generation.status.lower())
