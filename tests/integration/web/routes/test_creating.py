"""Starting generations: once for each key, whatever happens around it."""

import asyncio
import uuid
from dataclasses import replace
from typing import Any

import httpx
import pytest

from services.client.generations import Generation, GenerationClient
from services.runtime.errors import DeadlineExceeded
from services.simulator.faults.actions import Fail
from tests.integration.generation.simulator_process import Simulator
from tests.integration.web.routes.api import OTHER, PROMPT, USER, Api, pointers, refused, wish
from tests.pictures import make_picture

T2V = "/api/generation/text-to-video"
I2V = "/api/generation/image-to-video"
PICTURE = make_picture()
OTHER_PICTURE = make_picture(size=(96, 160))


async def create_from(
    api: Api, picture: bytes = PICTURE, key: str | None = None, **changes: Any
) -> httpx.Response:
    """Starts a video from an image, by a form."""
    fields = wish(model="i2v-14B", **changes)
    return await api.post(
        I2V,
        headers={} if key is None else {"Idempotency-Key": key},
        data={name: str(value) for name, value in fields.items()},
        files={"image": ("photo.png", picture, "image/png")},
    )


def stored_images(api: Api) -> int:
    return len(list((api.services.files / "inputs").rglob("*.*")))


async def test_a_video_is_made_and_paid_once(api: Api) -> None:
    answer = await api.create()

    created = answer.json()
    generation_id = created["generation_id"]
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/api/generations/{generation_id}"
    assert "Idempotency-Replayed" not in answer.headers
    assert uuid.UUID(generation_id).version == 7
    assert created["prompt"] == PROMPT
    assert created["create_time"].endswith("Z")
    assert "user_id" not in created
    assert "job_id" not in created
    done = await api.reaches(generation_id, "COMPLETED")
    assert done["charged_credits"] == done["cost_credits"] == 10
    assert done["error"] is None
    assert await api.balance() == (90, 0)


async def test_a_key_makes_one_generation_however_often_it_comes(api: Api) -> None:
    first = await api.create(key="click-1")
    again = await api.create(key="click-1")
    together = await asyncio.gather(*(api.create(key="click-2") for _ in range(5)))
    await api.reaches(first.json()["generation_id"], "COMPLETED")
    late = await api.create(key="click-1")

    assert [first.status_code, again.status_code, late.status_code] == [202] * 3
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert late.headers["Idempotency-Replayed"] == "true"
    assert late.json()["status"] == "COMPLETED"
    ids = {answer.json()["generation_id"] for answer in (first, again, late)}
    assert len(ids) == 1
    assert uuid.UUID(ids.pop()).version == 8
    assert len({answer.json()["generation_id"] for answer in together}) == 1
    history = (await api.get("/api/generations")).json()["generations"]
    assert len(history) == 2


async def test_users_have_keys_of_their_own(api: Api) -> None:
    mine = await api.create(key="same")
    theirs = await api.create(key="same", user=OTHER)

    assert (mine.status_code, theirs.status_code) == (202, 202)
    assert mine.json()["generation_id"] != theirs.json()["generation_id"]
    assert "Idempotency-Replayed" not in theirs.headers


async def test_a_key_with_other_fields_is_refused_and_the_field_is_named(api: Api) -> None:
    await api.create(key="k")

    other = refused(await api.create(key="k", seed=5), 409, "GENERATION_ID_REUSED")

    assert other["field"] == "seed"
    # The caller sent a key, and knows of no id.
    assert other["detail"] == (
        "This Idempotency-Key was used for another wish, whose `seed` differs; choose a new one."
    )


class Forgetful(GenerationClient):
    """The real client, which cannot find out what there is already."""

    def __init__(self, address: str, wait_s: float) -> None:
        super().__init__(address)
        self._wait_s = wait_s

    async def get(self, user_id: str, generation_id: str) -> Generation:
        await asyncio.sleep(self._wait_s)
        raise DeadlineExceeded("", f"{user_id} waits for {generation_id}")


@pytest.mark.parametrize("wait_s", [0, 3600])
async def test_a_create_does_not_depend_on_what_only_its_header_says(
    api: Api, wait_s: float
) -> None:
    uploaded = await api.post("/api/uploads", files={"image": PICTURE})
    from_image = wish(model="i2v-14B", image_uri=uploaded.json()["image_uri"])
    async with Forgetful(api.services.generation_address, wait_s) as client:
        api.app.state.parts = replace(api.parts, generations=client)

        answers = [await api.create(key="k") for _ in range(2)]
        answers += [
            await api.post(I2V, headers={"Idempotency-Key": "i"}, json=from_image) for _ in range(2)
        ]

    assert [answer.status_code for answer in answers] == [202] * 4
    assert len({answer.json()["generation_id"] for answer in answers}) == 2
    # What is not sure is not said.
    assert all("Idempotency-Replayed" not in answer.headers for answer in answers)


async def test_a_key_that_is_none_is_refused_by_its_name(api: Api) -> None:
    for key in (b"", b"a b", "é".encode(), b"x" * 256, b"a\tb"):
        headers: Any = {"Idempotency-Key": key}
        answer = await api.post(T2V, headers=headers, json=wish())

        problem = refused(answer, 422, "INVALID_FIELD")
        assert pointers(answer) == ["/Idempotency-Key"]
        assert "Idempotency-Key" in problem["detail"]


async def test_two_keys_at_once_are_refused(api: Api) -> None:
    headers = [
        ("Authorization", f"Bearer {api.token(USER)}"),
        ("Idempotency-Key", "one"),
        ("Idempotency-Key", "two"),
    ]

    answer = await api.http.post(T2V, headers=headers, json=wish())

    refused(answer, 422, "INVALID_FIELD")


async def test_too_few_credits_are_told_exactly_and_remembered_under_the_key(
    api: Api,
) -> None:
    for number in range(5):
        await api.created(key=f"k{number}", model="t2v-14B", resolution="720p")

    first = refused(await api.create(key="poor"), 402, "INSUFFICIENT_CREDITS")
    await api.services.credits.add(USER, 50)
    again = refused(await api.create(key="poor"), 402, "INSUFFICIENT_CREDITS")
    anew = await api.create(key="rich")

    for problem in (first, again):
        assert (problem["required"], problem["available"], problem["shortfall"]) == (10, 0, 10)
    assert anew.status_code == 202


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"prompt": None}, "/prompt"),
    ({"prompt": ""}, "/prompt"),
    ({"prompt": "too short"}, "/prompt"),
    ({"prompt": "x" * 501}, "/prompt"),
    ({"prompt": "x" * 2001}, "/prompt"),
    ({"prompt": 5}, "/prompt"),
    ({"prompt": ["a red fox running"]}, "/prompt"),
    ({"prompt": "a red fox \x00 running"}, "/prompt"),
    ({"prompt": "a red fox \ud800 running"}, "/prompt"),
    ({"model": "t2v-9000"}, "/model"),
    ({"model": "i2v-14B"}, "/kind"),
    ({"resolution": "8k"}, "/resolution"),
    ({"seed": "5"}, "/seed"),
    ({"seed": -1}, "/seed"),
    ({"seed": 2**31}, "/seed"),
    ({"seed": True}, "/seed"),
    ({"seed": 1.5}, "/seed"),
    ({"aspect_ratio": "4:3"}, "/aspect_ratio"),
    ({"negative_prompt": "x" * 501}, "/negative_prompt"),
    ({"quote_token": "x" * 513}, "/quote_token"),
    ({"quote_token": "forged"}, "/quote_token"),
    ({"image_uri": "https://example.com/a.png"}, "/image_uri"),
    ({"user_id": "eve"}, "/user_id"),
    ({"generation_id": str(uuid.uuid4())}, "/generation_id"),
]


async def test_a_field_that_is_wrong_is_named(api: Api) -> None:
    for changes, pointer in WRONG:
        answer = await api.create(**changes)

        assert answer.status_code == 422, (changes, answer.text)
        assert pointer in pointers(answer), (changes, answer.text)
    assert await api.balance() == (100, 0)


async def test_all_wrong_fields_are_named_at_once(api: Api) -> None:
    answer = await api.create(prompt=5, seed="x", colour="red")

    assert sorted(pointers(answer)) == ["/colour", "/prompt", "/seed"]


UNREADABLE: list[tuple[bytes, str, tuple[int, ...]]] = [
    (b"", "application/json", (422,)),
    (b"{", "application/json", (422,)),
    (b"[]", "application/json", (422,)),
    (b"null", "application/json", (422,)),
    (b'"text"', "application/json", (422,)),
    # Where JSON is read by us, all that is none is the same mistake.
    (b"\xff\xfe", "application/json", (400, 422)),
    (b"[" * 60_000, "application/json", (400, 422)),
    (b"{}", "text/plain", (415,)),
    (b"{}", "application/x-www-form-urlencoded", (415,)),
    (b"{}", "", (415,)),
    (b"{" + b" " * 70_000 + b"}", "application/json", (413,)),
]


@pytest.mark.parametrize("path", [T2V, I2V, "/api/quotes", "/api/generations/delete"])
async def test_a_body_that_cannot_be_read_is_refused(api: Api, path: str) -> None:
    for content, content_type, statuses in UNREADABLE:
        headers = {"Content-Type": content_type} if content_type else {}
        answer = await api.post(path, headers=headers, content=content)

        assert answer.status_code in statuses, (content[:9], content_type, answer.text)
        refused(answer, answer.status_code, answer.json()["code"])


async def test_a_video_starts_from_an_image_in_a_form(api: Api) -> None:
    answer = await create_from(api, seed=7, negative_prompt="people")

    created = answer.json()
    assert answer.status_code == 202, answer.text
    assert created["kind"] == "IMAGE_TO_VIDEO"
    assert (created["seed"], created["negative_prompt"]) == (7, "people")
    assert created["image_uri"].startswith("upload:")
    await api.reaches(created["generation_id"], "COMPLETED")


async def test_a_video_starts_from_an_image_that_was_uploaded(api: Api) -> None:
    uploaded = await api.post("/api/uploads", files={"image": PICTURE})
    image_uri = uploaded.json()["image_uri"]

    answer = await api.post(I2V, json=wish(model="i2v-14B", image_uri=image_uri))

    assert answer.status_code == 202, answer.text
    assert answer.json()["image_uri"] == image_uri


async def test_nobody_starts_from_another_s_image(api: Api) -> None:
    uploaded = await api.post("/api/uploads", files={"image": PICTURE})
    image_uri = uploaded.json()["image_uri"]

    answer = await api.post(I2V, json=wish(model="i2v-14B", image_uri=image_uri), user=OTHER)

    refused(answer, 422, "IMAGE_NOT_ACCEPTED")
    assert pointers(answer) == ["/image_uri"]


async def test_a_repeated_form_is_one_generation_with_one_image(api: Api) -> None:
    first = await create_from(api, key="k")
    again = await create_from(api, key="k")
    together = await asyncio.gather(*(create_from(api, key="k2") for _ in range(3)))

    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json()["generation_id"] == first.json()["generation_id"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len({answer.json()["generation_id"] for answer in together}) == 1
    assert stored_images(api) == 1


async def test_a_repeated_form_with_another_image_is_refused(api: Api) -> None:
    created = await create_from(api, key="k")

    soon = refused(await create_from(api, OTHER_PICTURE, key="k"), 409, "GENERATION_ID_REUSED")
    await api.reaches(created.json()["generation_id"], "COMPLETED")
    late = refused(await create_from(api, OTHER_PICTURE, key="k"), 409, "GENERATION_ID_REUSED")

    assert soon["field"] == late["field"] == "image_uri"


async def test_a_form_repeated_after_its_image_was_removed_is_answered_as_before(
    api: Api,
) -> None:
    created = (await create_from(api, key="k")).json()
    await api.reaches(created["generation_id"], "COMPLETED")
    deleted = await api.call("DELETE", f"/api/generations/{created['generation_id']}")
    api.services.forget_images()

    again = await create_from(api, key="k")
    other = await create_from(api, key="k", seed=9)

    assert deleted.status_code == 204
    assert again.status_code == 202, again.text
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json()["generation_id"] == created["generation_id"]
    assert refused(other, 409, "GENERATION_ID_REUSED")["field"] == "seed"
    assert stored_images(api) == 0, "nothing would ever use a second one"


async def test_a_key_of_a_prompt_is_not_taken_by_a_form(api: Api) -> None:
    await api.create(key="k")

    problem = refused(await create_from(api, key="k"), 409, "GENERATION_ID_REUSED")

    assert problem["field"] in ("kind", "model")


async def test_a_field_of_a_form_that_is_wrong_is_named(api: Api) -> None:
    wrong: list[tuple[dict[str, str], str]] = [
        ({"prompt": "short"}, "/prompt"),
        ({"seed": "five"}, "/seed"),
        ({"seed": "-1"}, "/seed"),
        ({"seed": "9" * 30}, "/seed"),
        ({"seed": "\u0663"}, "/seed"),
        ({"image_uri": "upload:x"}, "/image_uri"),
        ({"model": "t2v-14B"}, "/kind"),
    ]
    for fields, pointer in wrong:
        answer = await api.post(I2V, data=wish(model="i2v-14B") | fields, files={"image": PICTURE})

        assert answer.status_code == 422, (fields, answer.text)
        assert pointer in pointers(answer), (fields, answer.text)


async def test_a_quote_holds_its_price_and_a_create_takes_it(api: Api) -> None:
    body = wish() | {"kind": "TEXT_TO_VIDEO"}

    quote = (await api.post("/api/quotes", json=body)).json()
    created = await api.create(quote_token=quote["quote_token"])
    elsewhere = await api.create(quote_token=quote["quote_token"], model="t2v-14B")

    assert (quote["cost_credits"], quote["available_after_credits"]) == (10, 90)
    assert quote["expire_time"].endswith("Z")
    assert created.status_code == 202
    assert created.json()["cost_credits"] == 10
    assert pointers(elsewhere) == ["/quote_token"]


async def test_a_failure_costs_nothing_and_can_be_made_again_once_for_each_key(
    api: Api, faulty: Simulator
) -> None:
    async with faulty.control() as control:
        await control.fault(Fail(error="NSFW content detected"))
    failed = await api.reaches(await api.created(seed=3), "FAILED")
    await faulty.reset()
    path = f"/api/generations/{failed['generation_id']}/retry"

    first = await api.post(path, headers={"Idempotency-Key": "r"}, json={"keep_seed": True})
    again = await api.post(path, headers={"Idempotency-Key": "r"}, json={"keep_seed": True})
    bare = await api.post(path)
    clash = await api.create(key="r")

    assert failed["error"]["code"]
    assert failed["charged_credits"] == 0
    assert (first.status_code, again.status_code, bare.status_code) == (202, 202, 202)
    made = first.json()
    assert first.headers["Location"] == f"/api/generations/{made['generation_id']}"
    assert (made["retry_of"], made["seed"]) == (failed["generation_id"], 3)
    assert again.json()["generation_id"] == made["generation_id"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert bare.json()["generation_id"] != made["generation_id"]
    assert "Idempotency-Replayed" not in bare.headers
    refused(clash, 409, "GENERATION_ID_REUSED")


async def test_what_is_done_cannot_be_made_again(api: Api) -> None:
    generation_id = await api.created()
    await api.reaches(generation_id, "COMPLETED")

    refused(await api.post(f"/api/generations/{generation_id}/retry"), 409, "NOT_RETRYABLE")


async def test_a_create_without_a_key_is_not_told_to_repeat_it(api: Api) -> None:
    await api.balance()  # There is an account now.
    await api.services.credits.stop()

    keyed = refused(await api.create(key="k"), 503, "CREDITS_UNAVAILABLE")
    bare = await api.create()
    read = refused(await api.get("/api/credits"), 503, "UNAVAILABLE")

    assert "Repeat it with the same Idempotency-Key." in keyed["detail"]
    told = refused(bare, 503, "CREDITS_UNAVAILABLE")
    assert "List your generations before you repeat it" in told["detail"]
    assert "Retry-After" not in bare.headers
    assert "retry_after_s" not in told
    assert "key" not in read["detail"].lower()


async def test_a_create_whose_outcome_is_open_is_repeated_with_its_key_and_charged_once(
    api: Api,
) -> None:
    await api.balance()  # There is an account now.
    await api.services.credits.stop()

    lost = await api.create(key="k")
    await api.services.credits.start()
    again = await api.create(key="k")
    done = await api.reaches(again.json()["generation_id"], "COMPLETED")

    refused(lost, 503, "CREDITS_UNAVAILABLE")
    assert int(lost.headers["Retry-After"]) >= 1
    assert again.status_code == 202
    assert again.headers["Idempotency-Replayed"] == "true"
    assert done["charged_credits"] == 10
    assert await api.balance() == (90, 0)
