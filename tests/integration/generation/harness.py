"""What the tests of the generation service share: replicas on one database, and what happens."""

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import cycle
from typing import Any, TypeVar

from sqlalchemy import Table, select, update
from sqlalchemy import event as sqlalchemy_event

from services.generation import tables
from services.generation.claims import Attempt, Claims
from services.generation.commands import AttemptRecord, Begin, Deliver, Happen
from services.generation.deliveries import Disposition
from services.generation.events import Event, PredictionSeen, Reserved, Submitted
from services.generation.gate import GatePolicy
from services.generation.history import History
from services.generation.metrics import GenerationMetrics
from services.generation.prediction import NotAPrediction, Prediction, parse_prediction
from services.generation.rows import generation_of, values_of
from services.generation.saga import begin
from services.generation.state import Generation, Kind, Output, Request, Stage
from services.generation.store import Store
from services.generation.timing import FAST, Timing
from services.runtime.database import Database, open_database

USER = "ada"
PROMPT = "a red fox running through fresh snow"
REQUEST = Request(Kind.TEXT_TO_VIDEO, "t2v-1.3B", "480p", PROMPT)
PRICE = 10
SEED = 7
OUTPUT = Output("outputs/ada/video.mp4", 1234, "0" * 64)
OUTPUT_URL = "https://replicate.delivery/video.mp4"
OPEN_GATE = GatePolicy(rate_per_s=1000.0, burst=1000, in_flight_max=1000)
WAIT_S = 15.0

T = TypeVar("T")


def new_id() -> str:
    return str(uuid.uuid4())


def beginning(
    generation_id: str | None = None,
    user_id: str = USER,
    request: Request = REQUEST,
    price_credits: int = PRICE,
) -> Begin:
    return Begin(generation_id or new_id(), user_id, request, price_credits)


def generation_in(stage: Stage, **changes: Any) -> Generation:
    """A generation as a row could hold it, whatever led there."""
    now = changes.pop("created_at", datetime.now(UTC))
    price_credits = changes.pop("price_credits", PRICE)
    begun = begin(
        changes.pop("generation_id", new_id()),
        changes.pop("user_id", USER),
        changes.pop("request", REQUEST),
        price_credits,
        now,
        FAST,
    )
    due_at = begun.due_at
    if stage.is_final or stage is Stage.PARKED:
        due_at = None
    elif stage is Stage.READY:
        due_at = begun.deadline_at - timedelta(seconds=FAST.submit_margin_s)
    usual: dict[str, Any] = {"stage": stage, "due_at": due_at}
    if stage.is_final:
        usual["finished_at"] = now
    if stage is Stage.CANCELED:
        usual["refund_percent"] = 100
    return replace(begun, **(usual | changes))


def said(job_id: str, status: str = "starting", **fields: Any) -> Prediction:
    """What the provider says about a prediction."""
    return parse_prediction(body_of(job_id, status, **fields))


def body_of(job_id: str, status: str = "starting", **fields: Any) -> bytes:
    if status == "succeeded":
        fields = {"output": OUTPUT_URL} | fields
    return json.dumps({"id": job_id, "status": status} | fields).encode()


def delivery(
    webhook_id: str, body: bytes, generation_id: str = "", attempt: int | None = None
) -> Deliver:
    """An event as the webhook service hands it over; proven if it names a generation."""
    try:
        prediction = parse_prediction(body)
    except NotAPrediction:
        prediction = None
    attempt = (1 if generation_id else 0) if attempt is None else attempt
    return Deliver(webhook_id, body, generation_id, attempt, datetime.now(UTC), prediction)


def attempt_of(generation: Generation) -> Attempt:
    return Attempt(
        generation_id=generation.generation_id,
        attempt=generation.attempt,
        provider_model="wan-video/wan-2.1-1.3b",
        input=json.dumps({"prompt": generation.request.prompt, "seed": SEED}),
        schema_sha256="0" * 64,
        seed=SEED,
    )


@dataclass
class Replica:
    """One process's view of the tables."""

    database: Database
    store: Store
    claims: Claims
    history: History
    changes: list[Generation] = field(default_factory=list)

    async def begun(self, command: Begin | None = None) -> Generation:
        return (await self.store.begin(command or beginning())).generation

    async def ready(self, command: Begin | None = None) -> Generation:
        return await self.tell(await self.begun(command), Reserved())

    async def submitting(self, command: Begin | None = None) -> Generation:
        """A generation whose attempt is about to be sent."""
        ready = await self.ready(command)
        claimed = await self.claims.claim_ready(1000, attempt_of)
        return next(g for g, _ in claimed if g.generation_id == ready.generation_id)

    async def running(self, job_id: str) -> Generation:
        generation = await self.submitting()
        return await self.tell(generation, Submitted(1, said(job_id)))

    async def archiving(self, job_id: str) -> Generation:
        generation = await self.running(job_id)
        return await self.tell(generation, PredictionSeen(said(job_id, "succeeded")))

    async def tell(
        self,
        generation: Generation,
        event: Event,
        fence: int | None = None,
        record: AttemptRecord | None = None,
    ) -> Generation:
        """Reports an event, made under the fence that `generation` has."""
        fence = generation.fence if fence is None else fence
        return await self.store.happen(Happen(generation.generation_id, event, fence, record))

    async def deliver(self, command: Deliver) -> Disposition:
        return (await self.store.deliver(command)).disposition

    async def now_is(self, generation: Generation) -> Generation:
        """The row of a generation."""
        found = await self.history.find(generation.user_id, generation.generation_id)
        assert found is not None
        return found

    async def rows(self, table: Table, **equal: Any) -> list[dict[str, Any]]:
        """Rows of `table`, in the order of its primary key."""
        conditions = [table.c[name] == value for name, value in equal.items()]
        query = select(table).where(*conditions).order_by(*table.primary_key.columns)
        async with self.database.read() as connection:
            return [dict(row) for row in (await connection.execute(query)).mappings()]

    async def generations(self) -> list[Generation]:
        async with self.database.read() as connection:
            found = await connection.execute(
                select(tables.generations).order_by(tables.generations.c.generation_id)
            )
            return [generation_of(row) for row in found.mappings()]

    async def insert(self, *generations: Generation) -> None:
        async with self.database.write() as connection:
            await connection.execute(
                tables.generations.insert(), [values_of(generation) for generation in generations]
            )

    async def make_due(self, *generations: Generation) -> None:
        """Lets leases and timers end."""
        ids = [generation.generation_id for generation in generations]
        past = datetime.now(UTC) - timedelta(seconds=1)
        async with self.database.write() as connection:
            await connection.execute(
                update(tables.generations)
                .where(tables.generations.c.generation_id.in_(ids))
                .values(due_at=past)
            )


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    database = open_database(url)
    try:
        yield database
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def opened_replica(
    database: Database,
    timing: Timing = FAST,
    policy: GatePolicy = OPEN_GATE,
    metrics: GenerationMetrics | None = None,
) -> AsyncIterator[Replica]:
    """A replica whose writer runs."""
    changes: list[Generation] = []
    store = Store(database, timing, changes.append, metrics=metrics)
    claims = Claims(database, timing, policy, "test")
    writing = asyncio.create_task(store.writer.run())
    try:
        yield Replica(database, store, claims, History(database), changes)
    finally:
        store.writer.close()
        await writing


@contextlib.asynccontextmanager
async def opened_replicas(
    url: str, number: int = 2, timing: Timing = FAST, policy: GatePolicy = OPEN_GATE
) -> AsyncIterator[Sequence[Replica]]:
    """Replicas on one database: with connections of their own, where it is not a file."""
    async with contextlib.AsyncExitStack() as stack:
        # A SQLite file has one process, so its replicas can only share what it opened.
        opens = 1 if url.startswith("sqlite") else number
        databases = [await stack.enter_async_context(opened(url)) for _ in range(opens)]
        yield [
            await stack.enter_async_context(opened_replica(database, timing, policy))
            for _, database in zip(range(number), cycle(databases), strict=False)
        ]


def note_errors(database: Database) -> list[str]:
    """A list that grows by every error of the database, also of those that are tried again."""
    errors: list[str] = []
    sqlalchemy_event.listen(
        database.writer.sync_engine,
        "handle_error",
        lambda context: errors.append(repr(context.original_exception)),
    )
    return errors


async def eventually(question: Callable[[], Awaitable[T | None]], limit_s: float = WAIT_S) -> T:
    """Returns the first answer of `question` that is neither None nor False."""
    give_up_at = time.monotonic() + limit_s
    while not (answer := await question()):
        assert time.monotonic() < give_up_at, "it did not happen in time"
        await asyncio.sleep(0.01)
    return answer
