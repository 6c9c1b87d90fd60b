"""Products with one safeguard taken out, each the service but for it: a judge must catch them."""

import itertools
import math
from dataclasses import replace
from datetime import datetime

from aiohttp import web
from reelworks.credits.v1 import credits_pb2

from services.generation import following, saga
from services.generation.__main__ import main
from services.generation.archive import Archive, Archived, output_key
from services.generation.commands import AttemptRecord
from services.generation.events import Event, Refunded
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
from services.generation.settlement import Settlement
from services.generation.state import Generation, Output, Stage
from services.generation.store import transition, write_back
from services.generation.worker import Worker
from services.runtime.channel import invoke
from services.runtime.database import read_clock
from services.webhook.__main__ import main as webhook_main
from services.webhook.inbox import ReceivedEvent
from services.webhook.ingress import Ingress

MODULE = "tests.chaos.products"
HONEST = "services.generation.__main__"
BLIND = f"{MODULE}:resubmit_blindly"
UNFENCED = f"{MODULE}:write_unfenced"
LATE = f"{MODULE}:send_late"
GENEROUS = f"{MODULE}:refund_twice"
EMPTY = f"{MODULE}:commit_without_archive"
FORGETFUL = f"{MODULE}:acknowledge_and_forget"
FORGOTTEN_EACH = 3
"""Of so many webhooks one is forgotten."""


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


def refund_twice() -> None:
    """Gives the price back by a refund, and once more by a gift."""
    once = Settlement.refund

    async def twice(settlement: Settlement, generation: Generation) -> Event:
        event = await once(settlement, generation)
        if isinstance(event, Refunded):
            gift = credits_pb2.AddCreditsRequest(
                user_id=generation.user_id,
                credits=generation.price_credits,
                type=credits_pb2.Transaction.ADJUSTMENT,
                request_id=f"again-{generation.generation_id}",
            )
            await invoke(settlement._stub.AddCredits, gift)
        return event

    setattr(Settlement, "refund", twice)  # noqa: B010
    main()


def commit_without_archive() -> None:
    """Says that a video is stored, and stores none."""

    async def pretend(archive: Archive, user_id: str, generation_id: str, url: str) -> Archived:
        del archive, url
        return Archived(Output(output_key(user_id, generation_id), 1000, "0" * 64, 5.0))

    setattr(Archive, "save", pretend)  # noqa: B010
    main()


def acknowledge_and_forget() -> None:
    """Answers 200 to every third webhook without storing it."""
    store, count = Ingress._store, itertools.count(1)

    async def forget(ingress: Ingress, event: ReceivedEvent) -> web.Response:
        if next(count) % FORGOTTEN_EACH == 0:
            return web.Response(text="stored\n")
        return await store(ingress, event)

    setattr(Ingress, "_store", forget)  # noqa: B010
    webhook_main()
