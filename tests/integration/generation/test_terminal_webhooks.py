"""Webhooks about ends are counted whoever told first, so that a quick poll hides none."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from services.generation.catalog import load_catalog
from services.generation.events import PredictionSeen
from services.generation.metrics import TIMELY_S, GenerationMetrics
from services.runtime.metrics import PREFIX, Metrics
from tests.integration.generation.harness import (
    Replica,
    body_of,
    delivery,
    opened,
    opened_replica,
    said,
)


@dataclass
class Counted:
    """A replica, and what it has counted."""

    replica: Replica
    metrics: Metrics

    def webhooks(self) -> tuple[float | None, float | None]:
        """How many came in time, and how many late."""
        timely, late = (
            self.metrics.registry.get_sample_value(
                f"{PREFIX}terminal_webhooks_total", {"timely": word}
            )
            for word in ("yes", "no")
        )
        return timely, late


@pytest.fixture
async def counted(url: str) -> AsyncIterator[Counted]:
    metrics = Metrics()
    measures = GenerationMetrics(load_catalog(), metrics)
    async with opened(url) as database, opened_replica(database, metrics=measures) as replica:
        yield Counted(replica, metrics)


async def test_an_end_that_a_webhook_tells_first_is_counted(counted: Counted) -> None:
    running = await counted.replica.running("job1")

    for _ in range(2):
        await counted.replica.deliver(
            delivery("w1", body_of("job1", "succeeded"), running.generation_id)
        )

    assert counted.webhooks() == (1, 0)


async def test_an_end_that_a_poll_tells_first_is_counted_when_its_webhook_comes(
    counted: Counted,
) -> None:
    running = await counted.replica.running("job1")
    await counted.replica.tell(running, PredictionSeen(said("job1", "succeeded")))
    assert counted.webhooks() == (0, 0)

    await counted.replica.deliver(delivery("w1", body_of("job1", "succeeded")))

    assert counted.webhooks() == (1, 0)


async def test_a_webhook_that_comes_too_late_is_counted_as_such(counted: Counted) -> None:
    running = await counted.replica.running("job1")
    await counted.replica.tell(running, PredictionSeen(said("job1", "succeeded")))
    command = delivery("w1", body_of("job1", "succeeded"))

    late = command.received_at + timedelta(seconds=TIMELY_S + 5)
    await counted.replica.deliver(replace(command, received_at=late))

    assert counted.webhooks() == (0, 1)


async def test_what_is_no_end_is_not_counted(counted: Counted) -> None:
    running = await counted.replica.running("job1")

    await counted.replica.deliver(
        delivery("w1", body_of("job1", "processing"), running.generation_id)
    )
    await counted.replica.deliver(delivery("w2", body_of("job9", "succeeded")))

    assert counted.webhooks() == (0, 0)
