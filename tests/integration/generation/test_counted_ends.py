"""The end of a prediction is counted once, however many tell of it, and as what it was."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import pytest
from sqlalchemy import Select, select, text

from services.generation import tables
from services.generation.catalog import load_catalog
from services.generation.events import PredictionSeen, Source
from services.generation.metrics import GenerationMetrics
from services.generation.state import Generation, Stage
from services.runtime.database import Database
from services.runtime.metrics import PREFIX, Metrics
from tests.integration.generation.harness import (
    Replica,
    body_of,
    delivery,
    eventually,
    opened,
    opened_replica,
    said,
)

RAN = {"metrics": {"predict_time": 4.0}}


@dataclass
class Counted:
    """Replicas on one database, and what they have counted together."""

    replicas: Sequence[Replica]
    metrics: Metrics

    def ends(self) -> dict[str, float]:
        """What the provider's work was counted as."""
        found = {"orphans": self._sum("orphans_charged_total")}
        for word in ("yes", "no"):
            found[f"seconds charged: {word}"] = self._sum("provider_seconds_total", charged=word)
        return found

    def _sum(self, name: str, **labels: str) -> float:
        return sum(
            sample.value
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.name == PREFIX + name and labels.items() <= sample.labels.items()
        )


@pytest.fixture
async def counted(url: str) -> AsyncIterator[Counted]:
    metrics = Metrics()
    measures = GenerationMetrics(load_catalog(), metrics)
    async with (
        opened(url) as database,
        opened_replica(database, metrics=measures) as one,
        opened_replica(database, metrics=measures) as other,
    ):
        yield Counted([one, other], metrics)


async def test_a_poll_and_a_webhook_of_one_batch_tell_of_one_end(counted: Counted) -> None:
    replica = counted.replicas[0]
    running = await replica.running("job1")

    await asyncio.gather(
        replica.tell(running, PredictionSeen(said("job1", "succeeded", **RAN), Source.POLL)),
        replica.deliver(delivery("w1", body_of("job1", "succeeded", **RAN))),
    )

    assert counted.ends() == {"orphans": 0, "seconds charged: yes": 4, "seconds charged: no": 0}


@pytest.mark.parametrize("status", ["succeeded", "failed"])
async def test_two_webhooks_of_one_batch_tell_of_one_end(status: str, counted: Counted) -> None:
    replica = counted.replicas[0]
    await replica.running("job1")
    body = body_of("job1", status, error="Prediction interrupted (code: PA)", **RAN)

    await asyncio.gather(*(replica.deliver(delivery(f"w{n}", body)) for n in range(3)))

    is_charged = status == "succeeded"
    assert counted.ends() == {
        "orphans": 0,
        "seconds charged: yes": 4 if is_charged else 0,
        "seconds charged: no": 0 if is_charged else 4,
    }


async def test_the_end_of_an_orphan_that_two_webhooks_of_one_batch_tell_counts_once(
    counted: Counted,
) -> None:
    replica = counted.replicas[0]
    running = await replica.running("job1")
    body = body_of("job2", "succeeded", **RAN)

    await asyncio.gather(
        *(replica.deliver(delivery(f"w{n}", body, running.generation_id)) for n in range(3))
    )

    assert counted.ends() == {"orphans": 1, "seconds charged: yes": 0, "seconds charged: no": 4}


@pytest.mark.parametrize("backend", ["postgresql"])
async def test_an_end_that_another_replica_learns_meanwhile_is_no_orphans(
    counted: Counted,
) -> None:
    one, other = counted.replicas
    running = await one.running("job1")
    end = PredictionSeen(said("job1", "succeeded", **RAN), Source.POLL)

    async with asyncio.TaskGroup() as tasks, one.database.write() as connection:
        await connection.execute(_lock(running))
        polled = tasks.create_task(one.tell(running, end))
        await eventually(lambda: _are_waiting(one.database, 1))
        tasks.create_task(other.deliver(delivery("w1", body_of("job1", "succeeded", **RAN))))
        await eventually(lambda: _are_waiting(one.database, 2))

    assert (await polled).stage is Stage.ARCHIVING
    assert counted.ends() == {"orphans": 0, "seconds charged: yes": 4, "seconds charged: no": 0}


def _lock(generation: Generation) -> Select[tuple[str]]:
    rows = tables.generations
    mine = rows.c.generation_id == generation.generation_id
    return select(rows.c.stage).where(mine).with_for_update()


async def _are_waiting(database: Database, transactions: int) -> bool:
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with database.read() as connection:
        return bool((await connection.execute(waiting)).scalar_one() >= transactions)
