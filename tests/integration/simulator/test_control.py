from typing import Any

from tests.integration.simulator.harness import Running, Start


async def control(running: Running, path: str) -> Any:
    async with running.session.get(f"{running.addresses.control}/control/{path}") as response:
        return await response.json()


async def test_the_state_tells_what_was_asked_and_what_really_happened(start: Start) -> None:
    running = await start()
    created = await running.create("a lake [fail]", webhook="http://127.0.0.1:1/hook?g=1")
    await running.reaches(created["id"], "failed")

    truth = await running.truth(created["id"])

    assert truth["request"].startswith('{"input": {"prompt": "a lake [fail]"')
    assert truth["webhook"] == "http://127.0.0.1:1/hook?g=1"
    assert truth["created_at"] <= truth["started_at"] <= truth["completed_at"]
    assert truth["plan"]["ending"] == "failure"
    assert (await control(running, "state"))["seed"] == 1


async def test_the_journal_has_every_request_and_no_token(start: Start) -> None:
    running = await start()
    await running.call("GET", "/account?a=%2B")
    await running.call("GET", "/predictions", token="r8_secret_wrong")
    async with running.session.get(f"{running.addresses.delivery}/xezq/x/output.mp4"):
        pass

    requests = (await control(running, "requests"))["requests"]

    assert [(one["listener"], one["path"], one["status"]) for one in requests] == [
        ("api", "/v1/account?a=%2B", 200),
        ("api", "/v1/predictions", 401),
        ("delivery", "/xezq/x/output.mp4", 404),
    ]
    authorizations = [dict(one["headers"]).get("Authorization") for one in requests]
    assert authorizations == ["Bearer …ator", "Bearer …rong", None]


async def test_a_reset_forgets_everything_but_the_numbers(start: Start) -> None:
    running = await start(speed=0.01)
    before = await running.create()
    await running.upload(b"a picture")

    async with running.session.post(f"{running.addresses.control}/control/reset") as response:
        assert response.status == 204

    assert (await control(running, "state"))["predictions"] == []
    assert (await control(running, "requests"))["requests"] == []
    assert (await running.call("GET", "/files"))[1]["results"] == []
    after = await running.create()
    assert after["id"] != before["id"]
