"""A process shows what it measures, on a port of its own, for as long as it serves."""

import asyncio
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from services.runtime.database import POOL_CONNECTIONS, SCANNERS, SQLITE_READERS, open_database
from services.runtime.metrics import Metrics, PoolMetrics, serving_metrics
from tests.certificates import Authority
from tests.conftest import NewDatabase

DAY_S = 86_400


def read(port: int) -> str:
    address = f"http://127.0.0.1:{port}/metrics"
    with urllib.request.urlopen(address, timeout=10) as answer:
        text: str = answer.read().decode()
        return text


async def test_measures_are_shown_until_the_end_of_the_block() -> None:
    metrics = Metrics()
    requests = metrics.counter("webhook_requests_total")

    async with serving_metrics(metrics, "127.0.0.1:0") as port:
        requests.labels(200).inc()
        shown = await asyncio.to_thread(read, port)

    assert 'reelworks_webhook_requests_total{answer="200"} 1.0' in shown
    assert "process_resident_memory_bytes" in shown
    with pytest.raises(urllib.error.URLError):
        await asyncio.to_thread(read, port)


async def test_without_an_address_nothing_is_shown() -> None:
    async with serving_metrics(Metrics(), None) as port:
        assert port == 0


async def test_a_taken_port_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"

        with pytest.raises(SystemExit) as raised:
            async with serving_metrics(Metrics(), address):
                pytest.fail("it cannot be served")

    assert raised.value.code == 2
    assert capsys.readouterr().err == (
        f"error: REELWORKS_METRICS_ADDRESS: {address} cannot be listened on; is it taken?\n"
    )


async def test_each_pool_shows_its_size_and_what_is_in_use(new_database: NewDatabase) -> None:
    metrics = Metrics()
    database = open_database(new_database("credits"))
    try:
        PoolMetrics(metrics).watch(database)

        async with database.read(), database.read():
            in_use = of_pools(metrics, "in_use")
        sizes = of_pools(metrics, "size")
    finally:
        await database.close()

    # On SQLite those who read also scan.
    assert sizes == (
        {"writer": 1, "reader": SQLITE_READERS}
        if database.is_exclusive
        else {"writer": POOL_CONNECTIONS, "reader": POOL_CONNECTIONS, "scanner": SCANNERS}
    )
    assert in_use == dict.fromkeys(sizes, 0) | {"reader": 2}
    assert set(of_pools(metrics, "in_use").values()) == {0}


def test_a_certificate_shows_until_when_it_is_good_also_after_it_was_replaced(
    tmp_path: Path,
) -> None:
    metrics, authority = Metrics(), Authority()
    files = authority.files(tmp_path, "credits", days=1)
    without = of_certificate(metrics)

    certificates = files.read()
    metrics.watch_certificate(certificates.current)
    of_a_day = of_certificate(metrics)
    authority.files(tmp_path, "credits", days=90)
    of_90_days = of_certificate(metrics)

    assert without == (0, 0)
    for (expires_s, late_s), days in ((of_a_day, 1), (of_90_days, 90)):
        assert expires_s == pytest.approx(time.time() + days * DAY_S, abs=300)
        assert time.time() - 61 * DAY_S < late_s < expires_s
    assert of_90_days[1] > of_a_day[1]


def of_pools(metrics: Metrics, name: str) -> dict[str, float]:
    """Returns what each pool shows."""
    return {
        sample.labels["pool"]: sample.value
        for family in metrics.registry.collect()
        if family.name == f"reelworks_database_pool_{name}"
        for sample in family.samples
    }


def of_certificate(metrics: Metrics) -> tuple[float, float]:
    """Returns when it expires, and when it is late."""
    expires, late = (
        metrics.registry.get_sample_value(f"reelworks_certificate_{name}_timestamp")
        for name in ("expires", "late")
    )
    assert expires is not None
    assert late is not None
    return expires, late
