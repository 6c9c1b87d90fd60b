"""What is remembered is bounded, and what was forgotten is told."""

import json
from pathlib import Path

import pytest

from services.simulator import journal, predictions, uploads
from services.simulator.client import SimulatorControl
from services.simulator.renderer import Renderer
from services.simulator.server import run_simulator
from services.simulator.settings import SimulatorSettings
from tests.integration.simulator.harness import SMALL, Start, eventually
from tests.integration.simulator.raw_call import raw_call, raw_create


async def test_the_journal_keeps_the_latest_and_counts_the_rest(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "ENTRIES_MAX", 20)
    monkeypatch.setattr(journal, "TRIM_EVERY", 5)
    running = await start()

    for _ in range(60):
        await running.call("GET", "/account")
    numbers = [one["number"] for one in await running.control.requests()]
    verdict = await running.control.violations()

    assert 20 <= len(numbers) < 26
    assert numbers == list(range(61 - len(numbers), 61))
    assert verdict.missing_requests == 60 - len(numbers)
    await running.control.reset()
    await running.call("GET", "/account")
    assert [one["number"] for one in await running.control.requests()] == [1]
    assert (await running.control.violations()).missing_requests == 0


async def test_the_oldest_predictions_are_forgotten_and_counted(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "REMOVED_MAX", 2)
    running = await start(retention_s=0.1)
    made = [(await running.create("a lake [fail]"))["id"] for _ in range(5)]

    async def forgotten() -> list[str] | None:
        left = [one["id"] for one in await running.control.predictions()]
        return left if len(left) == 2 else None

    left = await eventually(forgotten)

    assert set(left) < set(made)
    assert (await running.control.ledger()).missing == 3
    assert (await running.control.violations()).missing_predictions == 3


async def test_no_more_than_so_many_predictions_live(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "IN_FLIGHT_MAX", 2)
    running = await start(speed=0.01)

    assert [(await raw_create(running)).status for _ in range(3)] == [201, 201, 503]
    first = (await running.control.predictions())[0]["id"]
    await running.call("POST", f"/predictions/{first}/cancel")
    assert (await raw_create(running)).status == 201


async def test_the_oldest_uploads_leave(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "UPLOADS_MAX", 2)
    running = await start()

    made = [(await running.upload(b"a picture"))[1]["id"] for _ in range(3)]
    _, listed = await running.call("GET", "/files")

    assert [one["id"] for one in listed["results"]] == [made[2], made[1]]


async def test_truth_and_journal_survive_a_restart(renderer: Renderer, tmp_path: Path) -> None:
    settings = SimulatorSettings(
        api_port=0, delivery_port=0, control_port=0, speed=1000.0, data=tmp_path, video="stamp"
    )

    async def evidence(control: SimulatorControl) -> tuple[object, ...]:
        return (
            await control.predictions(),
            await control.requests(),
            await control.ledger(),
            (await control.violations()).violations,
        )

    async with (
        run_simulator(settings, renderer) as addresses,
        SimulatorControl(addresses.control) as control,
    ):
        for status, body in ((201, {"prompt": "a lake [fail]"}), (422, {})):
            assert await posted(addresses.api, settings.tokens[0], body) == status

        async def over() -> bool | None:
            (one,) = await control.predictions()
            return one["status"] == "failed" or None

        await eventually(over)
        before = await evidence(control)
    async with (
        run_simulator(settings, renderer) as addresses,
        SimulatorControl(addresses.control) as control,
    ):
        after = await evidence(control)
        assert await posted(addresses.api, settings.tokens[0], {}) == 422
        numbers = [one["number"] for one in await control.requests()]

    assert after == before
    assert numbers == [1, 2, 3]


async def posted(api: str, token: str, given: dict[str, str]) -> int | None:
    """Returns the status of the answer to a create."""
    address = f"{api}/v1/models/{SMALL}/predictions"
    heard = await raw_call("POST", address, token, json.dumps({"input": given}).encode())
    return heard.status
