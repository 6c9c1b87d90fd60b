"""Products with one safeguard taken out, each the service but for it: a judge must catch them."""

import math
from dataclasses import replace
from datetime import datetime

from services.generation import following, saga
from services.generation.__main__ import main
from services.generation.commands import AttemptRecord
from services.generation.events import Event
from services.generation.replicate import (
    Created,
    CreateRequest,
    Deferred,
    NotSent,
    Refused,
    Replicate,
    Unknown,
)
from services.generation.saga import step
from services.generation.state import Generation, Stage
from services.generation.store import transition, write_back
from services.generation.worker import Worker
from services.runtime.database import read_clock

MODULE = "tests.chaos.products"
HONEST = "services.generation.__main__"
BLIND = f"{MODULE}:resubmit_blindly"
UNFENCED = f"{MODULE}:write_unfenced"
LATE = f"{MODULE}:send_late"


def resubmit_blindly() -> None:
    """Sends a create again whose outcome is unknown, as any client does that retries."""

    def ready_again(g: Generation, now: datetime) -> Generation:
        del now
        return replace(g, stage=Stage.READY, due_at=g.deadline_at)

    for module in (saga, following):
        module.uncertain = ready_again  # type: ignore[attr-defined]
    main()


def write_unfenced() -> None:
    """Writes what came of an effect over whatever the row has become since it was claimed."""
    fenced = Worker._write_back

    async def overwrite(
        worker: Worker, generation: Generation, event: Event, record: AttemptRecord | None = None
    ) -> bool:
        if generation.stage is not Stage.RUNNING:
            return await fenced(worker, generation, event, record)
        async with worker._claims._database.write() as connection:
            now = await read_clock(connection)
            after = step(generation, event, now, worker._timing)
            moved = after.stage is not generation.stage
            await write_back(
                connection, [after], [transition(generation, after, event, now)] if moved else []
            )
        return True

    setattr(Worker, "_write_back", overwrite)  # noqa: B010  Types know no such surgery.
    main()


def send_late() -> None:
    """Sends a create however long it stood still before."""
    punctual = Replicate.create

    async def create(
        provider: Replicate, request: CreateRequest
    ) -> Created | Refused | Deferred | NotSent | Unknown:
        return await punctual(provider, replace(request, send_before=math.inf))

    setattr(Replicate, "create", create)  # noqa: B010
    main()
