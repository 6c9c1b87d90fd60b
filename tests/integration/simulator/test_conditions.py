"""What can be changed while the stand-in runs: clock, switches, limits, weather."""

import time
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, get_args

import pytest

from services.simulator.faults.action import Operation
from services.simulator.faults.actions import Jump, Rotate, SchemaDrift, Skew
from services.simulator.faults.engine import Firing
from services.simulator.faults.fault import AnyAction, Match
from services.simulator.faults.profiles import Profile
from tests.integration.simulator.harness import Receiver, Running, Start, eventually
from tests.integration.simulator.raw_call import raw_call, raw_create

T2V = "wavespeedai/wan-2.1-t2v-480p"
NEEDED: dict[str, dict[str, Any]] = {
    "status": {"status": 500},
    "cancel_status": {"status": 500},
    "succeed_with": {"output": "null"},
    "stale": {"age_s": 60},
    "create_then_hang": {"hang_s": 0.01},
    "create_late": {"late_s": 0.01},
    "before_create_answer": {"most_s": 0.01},
    "slow_bytes": {"bytes_per_s": 1e6},
    "huge_logs": {"size_mib": 0.01},
    "slow_body": {"body_s": 0.01},
    "delay_webhook": {"delay_s": 0.01},
    "flood": {"per_second": 100, "flood_s": 0.01},
    "skew": {"skew_s": 1},
    "jump": {"jump_s": 1},
    "aim_at_other_generation": {"generation": "g2"},
    "other_environment": {"query": "g=g2"},
}
"""What an action must be told, or is told here so that it does not take long."""
ACTIONS: list[AnyAction] = [
    one(**NEEDED.get(one.model_fields["kind"].default, {})) for one in get_args(AnyAction)
]


async def meet(running: Running, receiver: Receiver, operation: Operation, target: str) -> None:
    """Does what a fault can fire at."""
    predictions = f"{running.addresses.api}/v1/predictions"
    match operation:
        case Operation.CREATE | Operation.LIFE:
            await raw_create(running, "a lake [fail]")
        case Operation.GET:
            await raw_call("GET", f"{predictions}/{target}", running.token)
        case Operation.LIST:
            await raw_call("GET", f"{predictions}?created_before=2100-01-01", running.token)
        case Operation.CANCEL:
            await raw_call("POST", f"{predictions}/{target}/cancel", running.token)
        case Operation.FILE:
            await raw_call("GET", running.addresses.output(target))
        case Operation.WEBHOOK:
            hook = f"{receiver.address}/hook?g=g1"
            created = await running.create("a lake [fail]", webhook=hook)
            await running.reaches(created["id"], "failed")
        case _:
            raise AssertionError(f"no action fires first at {operation}")


def first_operation(action: AnyAction) -> Operation:
    """The one of its operations at which a test lets an action fire."""
    return min(action.operations, key=list(Operation).index)


@pytest.mark.parametrize("operation", sorted({first_operation(one) for one in ACTIONS}))
async def test_each_fault_fires_as_often_as_told_and_is_in_the_journal(
    start: Start, receiver: Receiver, operation: Operation
) -> None:
    # A cancel meets nothing that has ended, so that nothing may end meanwhile.
    running = await start(speed=0.01 if operation is Operation.CANCEL else 1000.0, video="stamp")
    for action in [one for one in ACTIONS if first_operation(one) is operation]:
        await running.control.reset()
        targets = [await running.create() for _ in range(3)]
        if operation is Operation.FILE:
            for target in targets:
                await running.reaches(target["id"], "succeeded")
        await running.control.fault(action, Match(operation=operation), times=2)

        for target in targets:
            await meet(running, receiver, operation, target["id"])

        async def both() -> list[Firing] | None:
            firings = await running.control.firings()
            return firings if len(firings) >= 2 else None

        firings = await eventually(both)
        assert [(one.kind, one.operation) for one in firings] == [(action.kind, operation)] * 2
        assert [one.fired for one in await running.control.faults()] == [2], action.kind


async def test_a_wrong_clock_shows_in_every_moment_and_moves_nothing(
    start: Start, receiver: Receiver
) -> None:
    running = await start()
    await running.control.fault(Skew(skew_s=-7200))

    heard = await raw_create(running, "a lake [fail]", webhook=f"{receiver.address}/hook")
    done = await running.reaches(heard.json["id"], "failed")
    since = {"created_after": done["created_at"]}
    _, page = await running.call("GET", "/predictions", params=since)
    event = (await receiver.gets(1))[0]

    two_hours_ago = pytest.approx(time.time() - 7200, abs=60)
    assert parsedate_to_datetime(heard.headers["date"]).timestamp() == two_hours_ago
    for key in ("created_at", "started_at", "completed_at"):
        assert datetime.fromisoformat(done[key]).timestamp() == two_hours_ago
    assert int(event.headers["webhook-timestamp"]) == two_hours_ago
    assert [one["id"] for one in page["results"]] == [done["id"]]
    assert (await running.truth(done["id"]))["created_at"] == pytest.approx(time.time(), abs=60)


async def test_a_wrong_clock_shows_in_uploaded_files_and_in_every_listener(start: Start) -> None:
    running = await start(speed=0.01)
    await running.control.change_clock(skew_s=7200)

    _, file = await running.upload(b"a picture")
    created = (await raw_create(running)).json
    delivered = await raw_call("GET", f"{running.addresses.delivery}/files/{file['id']}")
    refused = await raw_call("GET", f"{running.addresses.api}/v1/account", "r8_wrong")

    in_two_hours = pytest.approx(time.time() + 7200, abs=60)
    for moment in (file["created_at"], created["created_at"]):
        assert datetime.fromisoformat(moment).timestamp() == in_two_hours
    expires_at = datetime.fromisoformat(file["expires_at"]).timestamp()
    assert expires_at == pytest.approx(time.time() + 7200 + 86_400, abs=60)
    for heard in (delivered, refused):
        assert parsedate_to_datetime(heard.headers["date"]).timestamp() == in_two_hours


async def test_a_jump_lets_deadlines_and_retention_pass(start: Start) -> None:
    running = await start()
    done = await running.create("a lake [fail]")
    await running.reaches(done["id"], "failed")
    waiting = await running.create("a lake [stuck]", headers={"Cancel-After": "30m"})
    await running.reaches(waiting["id"], "processing")

    await running.control.fault(Jump(jump_s=3601))
    await running.call("GET", "/account")

    assert (await running.reaches(waiting["id"], "canceled", "failed"))["status"]
    assert (await running.get(done["id"]))["data_removed"]
    await running.control.reset()
    assert (await running.control.switches()).schemas == "current"


async def test_the_input_schemas_change_while_it_runs(start: Start) -> None:
    running = await start(speed=0.01)

    async def takes(**given: Any) -> int:
        body = {"input": {"prompt": "a lake", **given}}
        status, _ = await running.call("POST", f"/models/{T2V}/predictions", json=body)
        return int(status)

    async def inputs() -> set[str]:
        _, model = await running.call("GET", f"/models/{T2V}")
        schemas = model["latest_version"]["openapi_schema"]["components"]["schemas"]
        return set(schemas["Input"]["properties"])

    assert (await takes(num_frames=3), await takes(sample_shift=0)) == (201, 201)
    assert "num_frames" not in await inputs()
    await running.control.fault(SchemaDrift(), Match(operation=Operation.CREATE, nth=2))
    assert await takes(sample_shift=0) == 201
    assert await takes(sample_shift=0) == 422
    assert await takes(num_frames=3) == 422
    assert "num_frames" in await inputs()
    assert (await running.control.switches()).schemas == "spring-2025"
    await running.control.switch(schemas="current")
    assert await takes(sample_shift=0) == 201


async def test_unknown_things_are_switched(start: Start) -> None:
    running = await start(speed=0.01)
    created = await running.create(webhook="http://127.0.0.1:1/hook")
    await running.control.switch(latest_version=False, webhook_echoed=False, http_webhooks=False)

    _, model = await running.call("GET", f"/models/{T2V}")
    read = await running.get(created["id"])
    refused = await raw_create(running, webhook="http://127.0.0.1:1/hook")
    taken = await raw_create(running, webhook="https://example.org/hook")

    assert model["latest_version"] is None
    assert "webhook" not in read
    assert refused.status == 422
    assert refused.json["invalid_fields"][0]["field"] == "webhook"
    assert taken.status == 201


async def test_what_costs_can_be_switched_afterwards(start: Start) -> None:
    running = await start()
    failed = await running.create("a lake [fail]")
    await running.reaches(failed["id"], "failed")

    assert not (await running.truth(failed["id"]))["charged"]
    await running.control.switch(failed_charged=True)
    assert (await running.truth(failed["id"]))["charged"]


@pytest.mark.parametrize("in_header", [True, False])
async def test_creates_and_calls_above_their_limits_are_refused(
    start: Start, in_header: bool
) -> None:
    running = await start(speed=0.01)
    await running.control.switch(
        creates_per_minute=2, calls_per_minute=3, retry_after_header=in_header
    )

    creates = [await raw_create(running) for _ in range(3)]
    calls = [(await running.call("GET", "/account"))[0] for _ in range(4)]

    assert [one.status for one in creates] == [201, 201, 429]
    assert [one.headers["ratelimit-remaining"] for one in creates] == ["1", "0", "0"]
    assert calls == [200, 200, 200, 429]
    refusal = creates[2]
    assert refusal.json["retry_after"] == 30
    assert refusal.headers.get("retry-after") == ("30" if in_header else None)
    assert "30 seconds" in refusal.json["detail"]
    assert len(await running.control.predictions()) == 2


async def test_an_account_with_little_credit_creates_one_by_one(start: Start) -> None:
    running = await start(speed=0.01, profile=Profile.LOW_CREDIT)

    assert [(await raw_create(running)).status for _ in range(3)] == [201, 429, 429]
    await running.control.profile(Profile.CALM)
    assert [(await raw_create(running)).status for _ in range(3)] == [201] * 3
    await running.control.reset()
    assert (await running.control.switches()).low_credit


async def test_an_outage_ends_by_itself(start: Start) -> None:
    running = await start(speed=0.01)
    await running.control.profile(Profile.OUTAGE, lasts_s=0.5)

    during = {(await raw_create(running)).status for _ in range(5)}

    async def over() -> bool | None:
        return (await raw_create(running)).status == 201 or None

    assert during <= {None, 503}
    await eventually(over)


async def test_a_weather_takes_the_place_of_another(start: Start) -> None:
    running = await start(profile=Profile.FLAKY)

    flaky = [one.fault.action.kind for one in await running.control.faults()]
    storm = await running.control.profile(Profile.STORM)
    calm = await running.control.profile(Profile.CALM)
    await running.control.reset()

    assert flaky == ["throttle", "create_then_hang", "drop_webhook", "duplicate_webhook"]
    assert len(storm) > 15
    assert calm == []
    assert len(await running.control.faults()) == 4


async def test_a_rotation_and_a_skew_fire_at_whatever_comes_next(start: Start) -> None:
    running = await start()
    await running.control.fault(Rotate())
    await running.control.fault(Skew(skew_s=5))

    await running.call("GET", "/account")
    await running.call("GET", "/account")

    assert [one.kind for one in await running.control.firings()] == ["rotate", "skew"]
