"""A user's history: seen, searched, canceled and deleted by that user alone."""

import uuid
from typing import Any

import pytest

from services.simulator.faults.actions import StuckStarting
from tests.integration.generation.simulator_process import Simulator
from tests.integration.web.routes.api import OTHER, Api, pointers, refused

MALFORMED = ("x", "delete", "a" * 300, str(uuid.uuid4()).upper(), f"{uuid.uuid4()}x", "%00", "..")


async def test_a_generation_is_whole_and_nothing_in_it_is_missing(api: Api) -> None:
    generation_id = await api.created(seed=4)

    shown = (await api.get(f"/api/generations/{generation_id}")).json()

    described = api.app.openapi()["components"]["schemas"]["Generation"]
    assert set(shown) == set(described["properties"]) == set(described["required"])
    assert shown["seed"] == 4
    assert shown["finish_time"] is None or shown["status"] == "COMPLETED"


async def test_a_history_comes_in_pages_and_by_what_is_asked_for(api: Api) -> None:
    prompts = [f"a red fox number {number} runs" for number in range(5)]
    ids = [await api.created(prompt=prompt) for prompt in prompts]
    for generation_id in ids:
        await api.reaches(generation_id, "COMPLETED")

    first = (await api.get("/api/generations?page_size=2")).json()
    second = (
        await api.get(
            "/api/generations", params={"page_size": 2, "page_token": first["next_page_token"]}
        )
    ).json()
    found = (await api.get("/api/generations?q=NUMBER 3")).json()["generations"]
    done = (await api.get("/api/generations?status=COMPLETED&kind=TEXT_TO_VIDEO")).json()
    failed = (await api.get("/api/generations?status=FAILED")).json()

    shown = [one["generation_id"] for one in first["generations"] + second["generations"]]
    assert shown == ids[:0:-1]
    assert [one["prompt"] for one in found] == [prompts[3]]
    assert len(done["generations"]) == 5
    assert (failed["generations"], failed["next_page_token"]) == ([], "")


async def test_a_query_that_is_wrong_is_named(api: Api) -> None:
    wrong = [
        ("page_size=0", "/page_size"),
        ("page_size=101", "/page_size"),
        ("page_size=x", "/page_size"),
        ("status=DONE", "/status"),
        ("kind=UNKNOWN", "/kind"),
        ("q=" + "x" * 101, "/q"),
        ("q=%00", "/q"),
        ("page_token=forged", "/page_token"),
        ("page_token=" + "x" * 513, "/page_token"),
        ("stauts=FAILED", "/stauts"),
    ]
    for query, pointer in wrong:
        answer = await api.get(f"/api/generations?{query}")

        refused(answer, 422, "INVALID_FIELD")
        assert pointers(answer) == [pointer], query


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/generations/{}"),
        ("DELETE", "/api/generations/{}"),
        ("POST", "/api/generations/{}/cancel"),
        ("POST", "/api/generations/{}/retry"),
    ],
)
async def test_what_is_another_s_or_nobody_s_is_not_found(api: Api, method: str, path: str) -> None:
    generation_id = await api.created()
    await api.reaches(generation_id, "COMPLETED")

    others = await api.call(method, path.format(generation_id), user=OTHER)
    nobodys = await api.call(method, path.format(uuid.uuid4()))

    told = refused(others, 404, "GENERATION_NOT_FOUND")
    assert refused(nobodys, 404, "GENERATION_NOT_FOUND").keys() == told.keys()
    for malformed in MALFORMED[:-1]:
        answer = await api.call(method, path.format(malformed))
        # `…/delete` is an address of its own.
        assert answer.status_code in (404, 405), (malformed, answer.text)
    still = await api.get(f"/api/generations/{generation_id}")
    assert (still.status_code, still.json()["delete_time"]) == (200, None)


async def test_another_s_history_shows_nothing_and_deletes_nothing(api: Api) -> None:
    generation_id = await api.created()
    await api.reaches(generation_id, "COMPLETED")

    seen = (await api.get("/api/generations", user=OTHER)).json()
    deleted = await api.post(
        "/api/generations/delete", json={"generation_ids": [generation_id]}, user=OTHER
    )

    assert seen["generations"] == []
    assert deleted.json() == {
        "deleted_ids": [],
        "unfinished_ids": [],
        "unknown_ids": [generation_id],
    }


async def test_what_has_ended_is_deleted_and_again_the_same(api: Api, faulty: Simulator) -> None:
    done = await api.created()
    await api.reaches(done, "COMPLETED")
    async with faulty.control() as control:
        await control.fault(StuckStarting())
    unfinished = await api.created()
    path = f"/api/generations/{done}"

    first = await api.call("DELETE", path)
    again = await api.call("DELETE", path)
    shown = await api.get(path)

    assert (first.status_code, again.status_code) == (204, 204)
    assert first.content == b""
    assert shown.json()["delete_time"] is not None
    refused(
        await api.call("DELETE", f"/api/generations/{unfinished}"), 409, "GENERATION_UNFINISHED"
    )
    history = (await api.get("/api/generations")).json()["generations"]
    assert [one["generation_id"] for one in history] == [unfinished]


async def test_many_are_deleted_at_once(api: Api) -> None:
    done = [await api.created() for _ in range(2)]
    for generation_id in done:
        await api.reaches(generation_id, "COMPLETED")
    unknown = str(uuid.uuid4())

    answer = await api.post(
        "/api/generations/delete", json={"generation_ids": [*done, unknown, done[0]]}
    )

    assert answer.status_code == 200
    assert answer.json() == {"deleted_ids": done, "unfinished_ids": [], "unknown_ids": [unknown]}


async def test_ids_to_delete_that_are_none_are_named(api: Api) -> None:
    wrong: list[tuple[Any, str]] = [
        ([], "/generation_ids"),
        ([str(uuid.uuid4())] * 101, "/generation_ids"),
        ([str(uuid.uuid4()), "x"], "/generation_ids/1"),
        ("x", "/generation_ids"),
    ]
    for ids, pointer in wrong:
        answer = await api.post("/api/generations/delete", json={"generation_ids": ids})

        refused(answer, 422, "INVALID_FIELD")
        assert pointers(answer) == [pointer]


async def test_a_cancel_gives_back_what_it_said(api: Api, faulty: Simulator) -> None:
    async with faulty.control() as control:
        await control.fault(StuckStarting())
    generation_id = await api.created()
    before = await api.reaches(generation_id, "QUEUED", "PROCESSING")
    path = f"/api/generations/{generation_id}/cancel"

    answer = await api.post(path)
    again = await api.post(path)

    assert answer.status_code == again.status_code == 200
    canceled = answer.json()
    assert canceled["status"] == "CANCELED"
    assert canceled["error"]["code"] == "CANCELED"
    assert canceled["charged_credits"] == 10 - before["cancel_refund_credits"] == 0
    assert await api.balance() == (100, 0)


async def test_what_is_done_is_not_canceled(api: Api) -> None:
    generation_id = await api.created()
    await api.reaches(generation_id, "COMPLETED")

    refused(await api.post(f"/api/generations/{generation_id}/cancel"), 409, "ALREADY_SUCCEEDED")
    assert await api.balance() == (90, 0)


async def test_no_answer_is_kept_by_caches(api: Api) -> None:
    generation_id = await api.created()

    for path in ("/api/generations", f"/api/generations/{generation_id}", "/api/credits"):
        answer = await api.get(path)
        assert answer.headers["Cache-Control"] == "no-store", path


async def test_an_address_says_which_methods_it_takes(api: Api) -> None:
    generation_id = await api.created()
    expected = {
        f"/api/generations/{generation_id}": "HEAD, GET, DELETE",
        f"/api/generations/{generation_id}/cancel": "POST",
        "/api/generations": "HEAD, GET",
        "/api/generations/delete": "POST",
        "/api/generation/text-to-video": "POST",
        "/api/sign-in": "HEAD, GET, POST",
    }
    for path, methods in expected.items():
        for method in ("PUT", "PATCH", "TRACE", "OPTIONS"):
            answer = await api.call(method, path)

            refused(answer, 405, "METHOD_NOT_ALLOWED")
            assert answer.headers["Allow"] == methods
