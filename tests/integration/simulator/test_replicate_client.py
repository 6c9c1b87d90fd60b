"""The unmodified `replicate` package against the simulator."""

import io

import httpx
import pytest
from replicate.exceptions import ReplicateError
from replicate.pagination import async_paginate
from replicate.webhook import Webhooks, WebhookValidationError

from tests.integration.simulator.harness import SMALL, Receiver, Start

INPUT = {"prompt": "a red fox running through fresh snow", "frame_num": 17, "seed": 7}


async def test_it_creates_by_model_waits_and_fetches_the_video(start: Start) -> None:
    client = (await start()).client()

    created = await client.predictions.async_create(model=SMALL, input=INPUT)
    assert (created.status, created.model, created.version) == ("starting", SMALL, "hidden")
    await created.async_wait()

    assert created.status == "succeeded"
    assert created.input == INPUT
    assert created.metrics is not None
    assert 17 <= created.metrics["predict_time"] <= 23
    async with httpx.AsyncClient() as browser:
        video = await browser.get(str(created.output))
    assert video.content[4:8] == b"ftyp"
    fetched = await client.predictions.async_get(created.id)
    assert fetched.dict() == created.dict()


async def test_it_creates_by_version_in_each_form(start: Start) -> None:
    client = (await start(speed=1.0)).client()
    latest = (await client.models.async_get(SMALL)).latest_version
    assert latest is not None

    for reference in (SMALL, f"{SMALL}:{latest.id}", latest.id):
        created = await client.predictions.async_create(version=reference, input=INPUT)
        assert created.version == ("hidden" if reference == SMALL else latest.id)


async def test_it_reads_the_input_schema(start: Start) -> None:
    client = (await start()).client()

    version = (await client.models.async_get("wavespeedai/wan-2.1-t2v-480p")).latest_version

    assert version is not None
    schemas = version.openapi_schema["components"]["schemas"]
    assert schemas["Input"]["required"] == ["prompt"]
    assert schemas["aspect_ratio"]["enum"] == ["16:9", "9:16"]


async def test_it_reads_progress_from_the_logs(start: Start) -> None:
    running = await start(speed=20.0)
    client = running.client()
    created = await client.predictions.async_create(model=SMALL, input=INPUT)

    seen = []
    while created.status not in ("succeeded", "failed"):
        await created.async_reload()
        if created.progress is not None:
            seen.append(created.progress.current)

    assert created.progress is not None
    assert (created.progress.current, created.progress.total) == (30, 30)
    assert seen == sorted(seen)
    assert len(set(seen)) > 3
    assert str(created.logs).startswith("Using seed: 7\n")
    assert "\nFinished in " in str(created.logs)


async def test_it_cancels(start: Start) -> None:
    client = (await start()).client()
    created = await client.predictions.async_create(
        model=SMALL, input={**INPUT, "prompt": "a lake [stuck]"}
    )

    await created.async_cancel()

    assert created.status == "canceled"
    assert created.output is None
    again = await client.predictions.async_cancel(created.id)
    assert again.dict() == created.dict()


async def test_it_lists_over_three_pages(start: Start) -> None:
    client = (await start(speed=0.01)).client()
    ids = [(await client.predictions.async_create(model=SMALL, input=INPUT)).id for _ in range(230)]

    pages = [page async for page in async_paginate(client.predictions.async_list)]

    assert [len(page) for page in pages] == [100, 100, 30]
    assert [one.id for page in pages for one in page] == ids[::-1]


async def test_it_uploads_reads_and_deletes_a_file(start: Start) -> None:
    client = (await start()).client()

    file = await client.files.async_create(
        io.BytesIO(b"a picture"), filename="cat.png", metadata={"from": "test"}
    )

    assert (file.name, file.content_type, file.size) == ("cat.png", "image/png", 9)
    assert file.metadata == {"from": "test"}
    assert file.urls["get"].endswith(f"/v1/files/{file.id}")
    assert (await client.files.async_get(file.id)).dict() == file.dict()
    assert [one.id for one in await client.files.async_list()] == [file.id]
    assert await client.files.async_delete(file.id)
    with pytest.raises(ReplicateError, match="could not be found"):
        await client.files.async_get(file.id)


async def test_it_validates_a_webhook_with_the_secret_it_fetched(
    start: Start, receiver: Receiver
) -> None:
    client = (await start()).client()
    secret = await client.webhooks.default.async_secret()
    await client.predictions.async_create(
        model=SMALL,
        input=INPUT,
        webhook=f"{receiver.address}/hook",
        webhook_events_filter=["completed"],
    )

    start_event, completed = await receiver.gets(2)

    for one in (start_event, completed):
        Webhooks.validate(headers=one.headers, body=one.body, secret=secret, tolerance=300)
        with pytest.raises(WebhookValidationError):
            Webhooks.validate(headers=one.headers, body=one.body + " ", secret=secret)


async def test_it_shows_what_was_wrong(start: Start) -> None:
    client = (await start()).client()

    with pytest.raises(ReplicateError) as caught:
        await client.predictions.async_create(model=SMALL, input={})

    assert caught.value.status == 422
    assert caught.value.title == "Input validation failed"
    assert caught.value.detail == "- input: prompt is required\n"


async def test_it_learns_who_it_is(start: Start) -> None:
    account = await (await start()).client().accounts.async_current()

    assert account.type == "user"
    assert account.username.startswith("simulated-")
