"""The store while several processes write the same rows."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Sequence
from hashlib import sha256
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import Executable, select, text

from services.generation import tables
from services.generation.commands import Begun, Deliver
from services.generation.deliveries import Disposition
from services.generation.events import (
    Committed,
    Event,
    OutputStored,
    PredictionSeen,
    Submitted,
)
from services.generation.state import Generation, Stage
from services.generation.store import Store
from services.generation.timing import FAST
from services.runtime.database import Database
from services.runtime.errors import Overloaded
from tests.integration.generation.harness import (
    OUTPUT,
    PRICE,
    SEED,
    Replica,
    beginning,
    body_of,
    delivery,
    eventually,
    note_errors,
    opened,
    said,
)

APPLIED, DUPLICATE = Disposition.APPLIED, Disposition.DUPLICATE


async def test_replicas_together_begin_no_more_for_a_user_than_allowed(
    replicas: Sequence[Replica],
) -> None:
    errors = [note_errors(replica.database) for replica in replicas]
    stores = [Store(replica.database, FAST, replica.changes.append, 5) for replica in replicas]
    writers = [asyncio.create_task(store.writer.run()) for store in stores]
    users = [f"user{number}" for number in range(8)]
    begins = [beginning(user_id=user) for user in users for _ in range(10)]
    random.Random(11).shuffle(begins)  # noqa: S311  The same order in every run.

    answers = await asyncio.gather(
        *(store.begin(command) for command in begins for store in stores), return_exceptions=True
    )
    for store in stores:
        store.writer.close()
    await asyncio.gather(*writers)

    begun = [answer for answer in answers if isinstance(answer, Begun)]
    assert Counter(b.generation.user_id for b in begun if b.created) == dict.fromkeys(users, 5)
    refused = [answer for answer in answers if not isinstance(answer, Begun)]
    assert all(isinstance(answer, Overloaded) for answer in refused)
    assert errors == [[] for _ in replicas]


async def test_replicas_that_write_the_same_generations_neither_deadlock_nor_disagree(
    replicas: Sequence[Replica],
) -> None:
    errors = [note_errors(replica.database) for replica in replicas]
    generations = [await replicas[0].submitting() for _ in range(16)]
    events = {g.generation_id: _events(f"job-{n}") for n, g in enumerate(generations)}
    deliveries = [d for n, g in enumerate(generations) for d in _deliveries(n, g)]
    shuffled = random.Random(11)  # noqa: S311  The same order in every run.
    answers: Counter[tuple[object, ...]] = Counter()

    async def deliver(replica: Replica, command: Deliver) -> None:
        if await replica.deliver(command) is not DUPLICATE:
            answers[command.webhook_id, command.generation_id, command.body] += 1

    async def work(replica: Replica) -> None:
        jobs: list[Awaitable[Any]] = [
            replica.tell(g, event) for g in generations for event in events[g.generation_id]
        ]
        jobs += [deliver(replica, command) for command in deliveries * 2]
        shuffled.shuffle(jobs)
        await asyncio.gather(*(_one_after_the_other(jobs[start::12]) for start in range(12)))

    await asyncio.gather(*(work(replica) for replica in replicas))
    for generation in generations:
        for event in events[generation.generation_id]:
            await replicas[1].tell(generation, event)

    assert errors == [[], []]
    # Of each event one delivery counted, whoever was asked.
    assert set(answers.values()) == {1}
    assert len(answers) == len(deliveries) == len(await replicas[0].rows(tables.prediction_events))
    predictions = defaultdict(list)
    for row in await replicas[0].rows(tables.predictions):
        predictions[row["generation_id"]].append((row["role"], row["job_id"], row["status"]))
    for number, before in enumerate(generations):
        after = await replicas[0].now_is(before)
        assert (after.stage, after.charged_credits) == (Stage.COMPLETED, PRICE)
        rows = await replicas[0].rows(tables.transitions, generation_id=before.generation_id)
        assert [row["to_stage"] for row in rows][-1] == "COMPLETED"
        assert all(a["to_stage"] == b["from_stage"] for a, b in pairwise(rows))
        assert rows[-1]["fence"] == after.fence
        assert sorted(predictions[before.generation_id]) == [
            ("ADOPTED", f"job-{number}", "succeeded"),
            ("ORPHAN", f"other-{number}", "failed"),
        ]


@pytest.mark.parametrize("backend", ["postgresql"])
async def test_two_replicas_lock_events_in_one_order(url: str, replicas: Sequence[Replica]) -> None:
    errors = [note_errors(replica.database) for replica in replicas]
    generations = await _running(replicas[0])
    batch = [_processing("msg", generation) for generation in generations]
    held = tables.prediction_events.insert().values(_event_row(batch[6]))

    answers = await _collide(url, replicas, [batch, batch[::-1]], held)

    assert errors == [[], []]
    assert Counter(answers) == {APPLIED: 12, DUPLICATE: 12}


@pytest.mark.parametrize("backend", ["postgresql"])
async def test_two_replicas_lock_generations_in_one_order(
    url: str, replicas: Sequence[Replica]
) -> None:
    errors = [note_errors(replica.database) for replica in replicas]
    generations = await _running(replicas[0])

    for round_ in range(5):
        first = [_processing(f"msg-{round_}", generation) for generation in generations]
        second = [_processing(f"event-{round_}", generation) for generation in generations[::-1]]
        key = tables.generations.c.generation_id
        held = select(key).where(key == first[6].generation_id).with_for_update()
        answers = await _collide(url, replicas, [first, second], held)
        assert Counter(answers) == {APPLIED: 24}

    assert errors == [[], []]


async def _running(replica: Replica) -> list[Generation]:
    running = [await replica.running(f"job-{number}") for number in range(12)]
    return sorted(running, key=lambda generation: generation.generation_id)


def _processing(webhook_id: str, generation: Generation) -> Deliver:
    body = body_of(str(generation.job_id), "processing")
    return delivery(webhook_id, body, generation.generation_id)


async def _collide(
    url: str, replicas: Sequence[Replica], batches: Sequence[list[Deliver]], held: Executable
) -> list[Disposition]:
    """Lets batches get stuck half-way at what a third holds, each with what it has by then."""
    async with opened(url) as third, third.writer.connect() as connection:
        await connection.execute(held)
        work = [
            asyncio.ensure_future(replica.deliver(command))
            for replica, batch in zip(replicas, batches, strict=True)
            for command in batch
        ]
        async with opened(url) as watching:
            await eventually(lambda: _waiting_for_locks(watching, 2))
        await connection.rollback()
    return await asyncio.gather(*work)


async def _waiting_for_locks(database: Database, number: int) -> bool:
    query = text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with database.read() as connection:
        waiting: int = (await connection.execute(query)).scalar_one()
        return waiting >= number


def _event_row(command: Deliver) -> dict[str, Any]:
    return {
        "webhook_id": command.webhook_id,
        "body_sha256": sha256(command.body).hexdigest(),
        "generation_id": command.generation_id,
        "attempt": command.attempt,
        "body": command.body,
        "received_at": command.received_at,
        "recorded_at": command.received_at,
        "disposition": "UNMATCHED",
    }


def _events(job_id: str) -> list[Event]:
    """All that happens to a generation, in order."""
    return [
        Submitted(1, said(job_id)),
        PredictionSeen(said(job_id, "processing")),
        PredictionSeen(said(job_id, "succeeded")),
        OutputStored(job_id, OUTPUT),
        Committed(),
    ]


def _deliveries(number: int, generation: Generation) -> list[Deliver]:
    """What the provider reports of it, and of a prediction that is not its own."""
    # All ids are alike, so that the keys of events do not sort as those of generations.
    name = generation.generation_id
    foreign = {"input": {"seed": SEED + 1}}
    return [
        delivery(f"msg-{number % 3}", body_of(f"job-{number}"), name),
        delivery(f"msg-{number % 5}", body_of(f"job-{number}", "succeeded"), name),
        delivery(f"msg-{number % 7}", body_of(f"job-{number}", "succeeded")),
        delivery(f"msg-{number % 2}", body_of(f"other-{number}", "failed", **foreign), name),
    ]


async def _one_after_the_other(jobs: Sequence[Awaitable[Any]]) -> None:
    for job in jobs:
        await job
