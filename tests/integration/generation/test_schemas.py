"""What the models take, as the provider publishes it now, and what happens while it does not."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.generation import schemas as module
from services.generation import tables
from services.generation.catalog import Offer, load_catalog
from services.generation.replicate import Replicate
from services.generation.schemas import ModelSchemas
from tests.integration.generation.harness import Replica, eventually
from tests.integration.generation.raw_http import Heard, RawServer, Script, raw_server, reply
from tests.integration.generation.simulator_process import TOKEN, running_simulator

LARGE = "wavespeedai/wan-2.1-t2v-720p"
SMALL = "wan-video/wan-2.1-1.3b"
MODELS = {v.provider_model for m in load_catalog().models for v in m.variants}
TAKES = {"prompt": {"type": "string"}, "image": {"type": "string"}, "seed": {"type": "integer"}}
HTML = b"<html><h1>502 Bad Gateway</h1></html>"


def model(properties: object) -> dict[str, Any]:
    schemas = {"Input": {"properties": properties}, "Output": {"type": "string"}}
    return {"latest_version": {"openapi_schema": {"components": {"schemas": schemas}}}}


def sha256(offer: Offer, provider_model: str) -> str:
    return next(
        v.schema.sha256
        for m in offer.catalog.models
        for v in m.variants
        if v.provider_model == provider_model
    )


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with raw_server(reply(200, model(TAKES))) as running:
        yield running


@pytest.fixture
async def provider(server: RawServer) -> AsyncIterator[Replicate]:
    opened = Replicate("r8_secret", server.origin, call_s=5)
    yield opened
    await opened.close()


@pytest.fixture
def offer() -> Offer:
    return Offer(load_catalog())


@pytest.fixture
def stopping() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
def schemas(
    offer: Offer, provider: Replicate, replica: Replica, stopping: asyncio.Event
) -> ModelSchemas:
    return ModelSchemas(offer, provider, replica.database, stopping)


async def test_the_bundled_schemas_are_what_the_provider_publishes_in_its_present_form(
    replica: Replica, offer: Offer, stopping: asyncio.Event
) -> None:
    bundled = load_catalog()
    with running_simulator(speed=1000) as simulator:
        provider = Replicate(TOKEN, simulator.api, call_s=10)
        try:
            had = await ModelSchemas(offer, provider, replica.database, stopping).fetch()
        finally:
            await provider.close()

    assert had
    for model_, was in zip(offer.catalog.models, bundled.models, strict=True):
        for now, before in zip(model_.variants, was.variants, strict=True):
            fetched, kept = (one.schema.schemas["Input"]["properties"] for one in (now, before))
            assert fetched.keys() == kept.keys()
            assert now.parameters == before.parameters


async def test_what_was_fetched_is_offered_and_remembered(
    schemas: ModelSchemas, offer: Offer, replica: Replica, server: RawServer
) -> None:
    before = sha256(offer, LARGE)

    assert await schemas.fetch()

    assert sorted(heard.path for heard in server.heard) == [
        f"/v1/models/{name}" for name in sorted(MODELS)
    ]
    rows = await replica.rows(tables.model_schemas)
    assert {row["provider_model"] for row in rows} == MODELS
    for row in rows:
        assert json.loads(row["schemas"]) == {"Input": {"properties": TAKES}}
        assert row["sha256"] == sha256(offer, row["provider_model"]) != before
        assert datetime.now(UTC) - row["fetched_at"] < timedelta(minutes=1)


async def test_what_is_fetched_again_replaces_what_was_remembered(
    schemas: ModelSchemas, offer: Offer, replica: Replica, server: RawServer
) -> None:
    await schemas.fetch()
    server.script = reply(200, model(TAKES | {"negative_prompt": {}}))

    await schemas.fetch()

    [row] = await replica.rows(tables.model_schemas, provider_model=LARGE)
    assert row["sha256"] == sha256(offer, LARGE)
    assert "negative_prompt" in json.loads(row["schemas"])["Input"]["properties"]


async def test_a_new_process_begins_with_what_was_remembered(
    schemas: ModelSchemas,
    replica: Replica,
    provider: Replicate,
    server: RawServer,
    stopping: asyncio.Event,
) -> None:
    await schemas.fetch()
    server.script = reply(502, HTML)
    later = Offer(load_catalog())
    running = asyncio.create_task(ModelSchemas(later, provider, replica.database, stopping).run())

    await eventually(lambda: _differs(later, load_catalog()))

    stopping.set()
    await running
    assert {sha256(later, name) for name in MODELS} == {
        row["sha256"] for row in await replica.rows(tables.model_schemas)
    }


async def _differs(offer: Offer, catalog: object) -> bool:
    return offer.catalog != catalog


@pytest.mark.parametrize(
    "script",
    [
        reply(502, HTML),
        reply(404, {"detail": "Not found."}),
        reply(200, {"latest_version": None}),
        reply(200, model({})),
        reply(200, model({"image": {}})),
        reply(200, model([])),
    ],
)
async def test_what_cannot_be_had_or_believed_changes_nothing(
    schemas: ModelSchemas, offer: Offer, replica: Replica, server: RawServer, script: Script
) -> None:
    server.script = script

    assert not await schemas.fetch()

    assert offer.catalog == load_catalog()
    assert await replica.rows(tables.model_schemas) == []


async def test_one_model_that_cannot_be_had_does_not_keep_the_others(
    schemas: ModelSchemas, offer: Offer, server: RawServer
) -> None:
    async def answer(heard: Heard, writer: asyncio.StreamWriter) -> None:
        script = reply(503, HTML) if heard.path.endswith(LARGE) else reply(200, model(TAKES))
        await script(heard, writer)

    server.script = answer

    assert not await schemas.fetch()
    assert sha256(offer, LARGE) == sha256(Offer(load_catalog()), LARGE)
    assert sha256(offer, SMALL) != sha256(Offer(load_catalog()), SMALL)


async def test_a_model_is_asked_once_whether_it_takes_something_else(
    schemas: ModelSchemas, offer: Offer, server: RawServer
) -> None:
    before, small = sha256(offer, LARGE), sha256(offer, SMALL)

    answers = await asyncio.gather(*(schemas.is_other_than(LARGE, before) for _ in range(5)))

    assert answers == [True] * 5
    assert len(server.heard) == 1
    # What is new is not asked for again for five minutes; each model has its own.
    assert not await schemas.is_other_than(LARGE, sha256(offer, LARGE))
    assert len(server.heard) == 1
    assert await schemas.is_other_than(SMALL, small)
    assert len(server.heard) == 2
    assert not await schemas.is_other_than("owner/unknown", before)
    assert len(server.heard) == 2


async def test_a_question_is_allowed_again_after_a_while(
    schemas: ModelSchemas, offer: Offer, server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script = reply(503, HTML)
    before = sha256(offer, LARGE)
    assert not await schemas.is_other_than(LARGE, before)
    server.script = reply(200, model(TAKES))
    assert not await schemas.is_other_than(LARGE, before)

    monkeypatch.setattr(module, "FETCH_AGAIN_S", 0.0)

    assert await schemas.is_other_than(LARGE, before)
    assert len(server.heard) == 2


async def test_it_stops_at_once_though_the_provider_is_silent(
    schemas: ModelSchemas, server: RawServer, stopping: asyncio.Event
) -> None:
    async def be_silent(_heard: Heard, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    server.script = be_silent
    running = asyncio.create_task(schemas.run())

    async def is_asked() -> bool:
        return bool(server.heard)

    await eventually(is_asked)
    stopping.set()

    async with asyncio.timeout(4):
        await running
