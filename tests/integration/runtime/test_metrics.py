"""A process shows what it measures, on a port of its own, for as long as it serves."""

import asyncio
import socket
import urllib.error
import urllib.request

import pytest

from services.runtime.metrics import Metrics, serving_metrics


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
