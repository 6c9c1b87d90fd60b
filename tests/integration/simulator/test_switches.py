"""Every switch in both positions, and every two of them in all four: each does its own only."""

from itertools import combinations
from typing import Any

import pytest

from services.simulator.client import SimulatorControl
from services.simulator.faults.action import Operation
from services.simulator.faults.actions import StuckStarting
from services.simulator.switches import Switches
from tests.integration.simulator.harness import Running, Start, eventually
from tests.integration.simulator.raw_call import raw_call, raw_create

T2V = "wavespeedai/wan-2.1-t2v-480p"
HOOK = "https://127.0.0.1:1/hook?g=g1"
POSITIONS: dict[str, tuple[Any, Any]] = {
    "list_lag_s": (0.0, 20.0),
    "webhook_echoed": (True, False),
    "cancel_finished_status": (200, 409),
    "aborted_webhook": (False, True),
    "retry_after_header": (True, False),
    "webhook_id_per": ("event", "prediction"),
    "http_webhooks": (True, False),
    "failed_charged": (False, True),
    "canceled_before_start_charged": (False, True),
    "latest_version": (True, False),
    "files_need_authorization": (False, True),
    "model_alias": (False, True),
    "schemas": ("current", "spring-2025"),
}
RUNS = 16


def positions(run: int) -> dict[str, Any]:
    """Returns one of 16 settings, which together hold all four positions of every two switches.

    The parities of the run's number under distinct masks are an orthogonal array.
    """
    return {
        name: both[(run & mask).bit_count() % 2]
        for mask, (name, both) in enumerate(POSITIONS.items(), start=1)
    }


def test_every_two_switches_meet_in_all_positions() -> None:
    settings = [positions(run) for run in range(RUNS)]

    for one, other in combinations(POSITIONS, 2):
        assert len({(each[one], each[other]) for each in settings}) == 4
    limits = {"low_credit", "creates_per_minute", "calls_per_minute"}
    assert set(POSITIONS) | limits == set(Switches.model_fields)


@pytest.mark.parametrize("run", range(RUNS))
async def test_each_switch_does_its_own_beside_all_others(start: Start, run: int) -> None:
    switches = positions(run)
    running = await start(video="stamp", switches=Switches(**switches))

    seen = {
        **await look_at_a_failure(running),
        **await look_at_a_cancel_and_an_abort(running),
        **await look_at_a_video(running),
        **await look_at_models_and_limits(running),
    }

    assert seen == switches


async def ended(control: SimulatorControl, prediction_id: str) -> dict[str, Any]:
    """Returns the truth about a prediction of which nothing more will be sent."""

    async def over() -> dict[str, Any] | None:
        (one,) = [one for one in await control.predictions() if one["id"] == prediction_id]
        silent = one["status"] == "aborted" and not one["attempts"]
        return one if one["completed_at"] and (one["settled"] or silent) else None

    return await eventually(over)


async def look_at_a_failure(running: Running) -> dict[str, Any]:
    failed = (await raw_create(running, "a lake [fail]", webhook=HOOK)).json["id"]
    attempts = (await ended(running.control, failed))["attempts"]
    read = await running.get(failed)
    status, _ = await running.call("POST", f"/predictions/{failed}/cancel")
    _, page = await running.call("GET", "/predictions")
    charges = {one.prediction: one for one in (await running.control.ledger()).charges}
    listed = [one for one in page["results"] if one["id"] == failed]
    return {
        "list_lag_s": 0.0 if listed else 20.0,
        "webhook_echoed": "webhook" in read,
        "cancel_finished_status": status,
        "webhook_id_per": "event" if len({one["webhook_id"] for one in attempts}) == 2
        else "prediction",
        "failed_charged": charges[failed].is_charged,
        "model_alias": read["model"].startswith("replicate-internal/"),
    }  # fmt: skip


async def look_at_a_cancel_and_an_abort(running: Running) -> dict[str, Any]:
    aborted = (await raw_create(running, "a lake [abort]", webhook=HOOK)).json["id"]
    await running.control.fault(StuckStarting())
    canceled = (await raw_create(running)).json["id"]
    status, _ = await running.call("POST", f"/predictions/{canceled}/cancel")
    assert status == 200
    await running.reaches(aborted, "aborted")
    charges = {one.prediction: one for one in (await running.control.ledger()).charges}
    # An event that comes at all has been tried by the time that another one's last try is over.
    later = (await raw_create(running, "a lake [fail]", webhook=HOOK)).json["id"]
    await ended(running.control, later)
    return {
        "canceled_before_start_charged": charges[canceled].is_charged,
        "aborted_webhook": bool((await running.truth(aborted))["attempts"]),
    }


async def look_at_a_video(running: Running) -> dict[str, Any]:
    made = await running.create()
    output = (await running.reaches(made["id"], "succeeded"))["output"]
    bare, shown = await raw_call("GET", output), await raw_call("GET", output, running.token)
    assert shown.status == 200
    return {"files_need_authorization": {200: False, 401: True}[bare.status or 0]}


async def look_at_models_and_limits(running: Running) -> dict[str, Any]:
    _, model = await running.call("GET", f"/models/{T2V}")
    # Below its least where the input is known, and ignored where it is not.
    few = {"input": {"prompt": "a lake [fail]", "num_frames": 3}}
    status, _ = await running.call("POST", f"/models/{T2V}/predictions", json=few)
    hooked = await raw_create(running, "a lake [fail]", webhook="http://127.0.0.1:1/hook")
    await running.control.switch(creates_per_minute=1)
    assert (await raw_create(running, "a lake [fail]")).status == 201
    throttled = await raw_create(running)
    assert throttled.status == 429
    assert [one.operation for one in await running.control.firings()] == [Operation.LIFE]
    return {
        "latest_version": model["latest_version"] is not None,
        "schemas": {201: "current", 422: "spring-2025"}[status],
        "http_webhooks": {201: True, 422: False}[hooked.status or 0],
        "retry_after_header": "retry-after" in throttled.headers,
    }
