import base64
import io
import re
from datetime import datetime

import pytest

from tests.integration.simulator.harness import SMALL, Start

UNAUTHENTICATED = {
    "title": "Unauthenticated",
    "detail": "You did not pass a valid authentication token",
    "status": 401,
}
NOT_FOUND = {"detail": "The requested resource could not be found.", "status": 404}


@pytest.mark.parametrize("authorization", ["", "Bearer ", "Bearer r8_wrong", "r8_simulator"])
async def test_without_a_known_token_nothing_is_answered(start: Start, authorization: str) -> None:
    running = await start()

    for path in ("/predictions", "/account", "/nothing"):
        answer = await running.call("GET", path, headers={"Authorization": authorization})
        assert answer == (401, UNAUTHENTICATED)


async def test_unknown_paths_and_methods_are_refused(start: Start) -> None:
    running = await start()

    assert await running.call("POST", "/webhooks") == (404, NOT_FOUND)
    assert await running.call("GET", "/predictions/" + "a" * 26) == (404, NOT_FOUND)
    assert await running.call("GET", "/models/no/model") == (404, NOT_FOUND)
    assert await running.call("POST", "/models/no/model/predictions", json={}) == (404, NOT_FOUND)
    status, body = await running.call("DELETE", "/predictions")
    assert (status, body["status"]) == (405, 405)


async def test_a_deployment_of_a_model_runs_it(start: Start) -> None:
    running = await start(speed=0.01)
    body = {"input": {"prompt": "a lake"}}

    status, created = await running.call("POST", f"/deployments/{SMALL}/predictions", json=body)
    read = await running.get(created["id"])
    refused = await running.call(
        "POST", f"/deployments/{SMALL}/predictions", json={**body, "version": SMALL}
    )

    assert (status, created["model"], created["deployment"]) == (201, SMALL, SMALL)
    assert re.fullmatch("dp-[0-9a-f]{32}", created["version"])
    assert (read["version"], read["deployment"]) == (created["version"], SMALL)
    assert refused[0] == 422
    assert await running.call("POST", "/deployments/no/model/predictions", json=body) == (
        404,
        NOT_FOUND,
    )


async def test_accounts_do_not_see_each_other(start: Start) -> None:
    running = await start(tokens=("r8_one", "r8_two"), speed=0.01)
    mine = await running.create()
    address = f"/predictions/{mine['id']}"

    assert await running.call("GET", address, "r8_two") == (404, NOT_FOUND)
    assert await running.call("POST", f"{address}/cancel", "r8_two") == (404, NOT_FOUND)
    _, theirs = await running.call("GET", "/predictions", "r8_two")
    assert theirs["results"] == []
    secrets = [
        (await running.call("GET", "/webhooks/default/secret", token))[1]["key"]
        for token in ("r8_one", "r8_two")
    ]
    assert secrets[0] != secrets[1]
    assert (await running.get(mine["id"]))["status"] == "starting"


async def test_a_create_answer_lacks_what_reads_have(start: Start) -> None:
    running = await start(speed=0.01)

    created = await running.create(webhook="http://127.0.0.1:1/hook")
    read = await running.get(created["id"])

    assert re.fullmatch("[a-z0-9]{26}", created["id"])
    assert set(read) - set(created) == {
        "output",
        "started_at",
        "completed_at",
        "metrics",
        "webhook",
        "webhook_events_filter",
    }
    assert re.fullmatch(r"[0-9T:-]+\.\d{9}Z", created["created_at"])
    assert re.fullmatch(r"[0-9T:-]+\.\d{6}Z", read["created_at"])
    times = [datetime.fromisoformat(one["created_at"]) for one in (created, read)]
    assert 0 < (times[1] - times[0]).total_seconds() <= 0.05
    assert all(address.startswith(running.addresses.api) for address in read["urls"].values())
    assert read["webhook_events_filter"] == ["start", "output", "completed"]


async def test_a_create_tells_how_many_are_left(start: Start) -> None:
    running = await start(speed=0.01)
    address = f"{running.addresses.api}/v1/models/{SMALL}/predictions"

    async with running.session.post(
        address,
        json={"input": {"prompt": "a lake"}},
        headers={"Authorization": f"Token {running.token}"},
    ) as response:
        assert response.status == 201
        assert response.headers["ratelimit-remaining"] == "599"
        assert 1 <= int(response.headers["ratelimit-reset"]) <= 60


async def test_a_body_that_cannot_be_taken_creates_nothing(start: Start) -> None:
    running = await start()
    path = f"/models/{SMALL}/predictions"
    good = {"input": {"prompt": "a lake"}}

    refusals = [
        await running.call("POST", path, data=b"{"),
        await running.call("POST", path, data=b"\xff"),
        await running.call("POST", path, json={**good, "version": "x"}),
        await running.call("POST", path, json={"input": {}}),
        await running.call("POST", path, json=good, headers={"Cancel-After": "4s"}),
        await running.call("POST", "/predictions", json={**good, "version": "x"}),
    ]

    assert [status for status, _ in refusals] == [400, 400, 422, 422, 422, 422]
    assert (await running.call("GET", "/predictions"))[1]["results"] == []


async def test_who_prefers_to_wait_gets_the_video_itself(start: Start) -> None:
    running = await start()

    answer = await running.create(headers={"Prefer": "wait=10"})

    assert answer["status"] == "succeeded"
    head, _, content = answer["output"].partition(",")
    assert head == "data:video/mp4;base64"
    assert base64.b64decode(content)[4:8] == b"ftyp"
    assert (await running.truth(answer["id"]))["prefer"] == "wait=10"


async def test_who_waits_in_vain_gets_202(start: Start) -> None:
    running = await start(speed=0.01)
    body = {"input": {"prompt": "a lake"}}

    status, answer = await running.call(
        "POST", f"/models/{SMALL}/predictions", json=body, headers={"Prefer": "wait=1"}
    )

    assert (status, answer["status"]) == (202, "starting")


async def test_the_list_is_filtered_by_time(start: Start) -> None:
    running = await start(speed=0.01)
    created = [await running.create() for _ in range(20)]
    shown = [(await running.get(one["id"]))["created_at"] for one in created]
    # What is shown jitters, so the order of the times is not that of the creates.
    middle = sorted(shown)[10]

    _, after = await running.call("GET", "/predictions", params={"created_after": middle})
    _, before = await running.call("GET", "/predictions", params={"created_before": middle})

    times = [[one["created_at"] for one in page["results"]] for page in (after, before)]
    assert times[0] == [one for one in reversed(shown) if one >= middle]
    assert times[1] == [one for one in reversed(shown) if one < middle]
    assert (len(times[0]), len(times[1])) == (10, 10)


async def test_an_upload_is_bounded_and_needs_content(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await start()
    monkeypatch.setattr("services.simulator.uploads.SIZE_BYTES_MAX", 1000)

    fits, _ = await running.upload(b"x" * 1000)
    too_large, _ = await running.upload(b"x" * 1001)
    missing, body = await running.call("POST", "/files", data={"other": io.BytesIO(b"x")})

    assert (fits, too_large, missing) == (201, 413, 422)
    assert body["invalid_fields"][0]["description"] == "content is required"
    assert len((await running.call("GET", "/files"))[1]["results"]) == 1
