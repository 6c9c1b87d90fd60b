import asyncio

import pytest

from tests.integration.simulator.harness import Start, eventually


@pytest.mark.parametrize(
    ("prompt", "status", "error"),
    [
        ("a lake", "succeeded", None),
        ("a lake [fail]", "failed", "E1001"),
        ("a lake [nsfw]", "failed", "NSFW"),
        ("a lake [abort]", "aborted", None),
        ("a lake [stuck]", "failed", "30 minutes"),
    ],
)
async def test_a_marker_leads_to_its_end(
    start: Start, prompt: str, status: str, error: str | None
) -> None:
    running = await start()
    created = await running.create(prompt)

    ended = await running.reaches(created["id"], "succeeded", "failed", "canceled", "aborted")

    assert ended["status"] == status
    assert error is None if ended["error"] is None else str(error) in ended["error"]
    assert (ended["output"] is not None) == (status == "succeeded")
    assert (ended["started_at"] is None) == (status == "aborted")
    assert ended["completed_at"] is not None
    assert ("predict_time" in ended["metrics"]) == (status != "aborted")


async def test_a_stuck_run_shows_no_more_progress(start: Start) -> None:
    running = await start(speed=1000.0)
    created = await running.create("a lake [stuck]")
    await running.reaches(created["id"], "processing")

    async def stopped() -> str | None:
        logs = str((await running.get(created["id"]))["logs"])
        return logs if " 12/30 [" in logs else None

    logs = await eventually(stopped)
    assert "13/30" not in logs
    assert (await running.get(created["id"]))["status"] == "processing"


async def test_cancel_after_aborts_before_the_start_and_cancels_after_it(start: Start) -> None:
    slow, fast = await start(speed=0.01), await start(speed=20.0)
    waiting = await slow.create(headers={"Cancel-After": "5s"})
    stuck = await fast.create("a lake [stuck]", headers={"Cancel-After": "5"})
    early = await fast.create(headers={"Cancel-After": "5m"})

    aborted, canceled, succeeded = await asyncio.gather(
        slow.reaches(waiting["id"], "aborted", "canceled"),
        fast.reaches(stuck["id"], "aborted", "canceled"),
        fast.reaches(early["id"], "succeeded"),
    )

    assert (aborted["status"], canceled["status"]) == ("aborted", "canceled")
    assert aborted["deadline"] == waiting["deadline"]
    assert aborted["deadline"] <= aborted["completed_at"]
    assert canceled["metrics"]["predict_time"] > 60
    assert succeeded["completed_at"] < succeeded["deadline"]


async def test_a_cancel_before_the_start_and_after_the_end(start: Start) -> None:
    slow, fast = await start(speed=0.01), await start()
    waiting = await slow.create()
    done = await fast.create("a lake [fail]")
    await fast.reaches(done["id"], "failed")

    _, canceled = await slow.call("POST", f"/predictions/{waiting['id']}/cancel")
    status, unchanged = await fast.call("POST", f"/predictions/{done['id']}/cancel")

    assert (canceled["status"], canceled["started_at"]) == ("canceled", None)
    assert (status, unchanged["status"]) == (200, "failed")


async def test_after_retention_only_the_facts_are_left(start: Start) -> None:
    running = await start(retention_s=0.6)
    created = await running.create()
    ended = await running.reaches(created["id"], "succeeded")
    async with running.session.get(ended["output"]) as response:
        assert response.status == 200

    async def removed() -> dict[str, object] | None:
        answer = await running.get(created["id"])
        return answer if answer["data_removed"] else None

    left = await eventually(removed)

    assert (left["input"], left["output"], left["logs"]) == ({}, None, "")
    assert (left["status"], left["metrics"]) == ("succeeded", ended["metrics"])
    async with running.session.get(ended["output"]) as response:
        assert response.status == 404

    async def swept() -> bool | None:
        return (await running.truth(created["id"]))["data_removed"] or None

    assert await eventually(swept)


async def test_two_simulators_with_one_seed_plan_the_same(start: Start) -> None:
    same = [await start(seed=3, speed=0.01), await start(seed=3, speed=0.01)]
    other = await start(seed=4, speed=0.01)

    async def plan(prompt: str, running_index: int) -> object:
        running = [*same, other][running_index]
        return (await running.truth((await running.create(prompt))["id"]))["plan"]

    first = [await plan("a lake", index) for index in range(3)]
    # A refused create takes no place in the row.
    await same[0].call("POST", "/predictions", json={})
    second = [await plan("a hill", index) for index in range(3)]

    assert first[0] == first[1] != first[2]
    assert second[0] == second[1] != second[2]
    assert first[0] != second[0]
