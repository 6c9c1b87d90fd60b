"""What is submitted after the provider refused an input for its fields."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from services.generation.catalog import Offer, load_catalog
from services.generation.claims import Attempt, NotOffered
from services.generation.commands import AttemptRecord
from services.generation.events import Event, SubmitDeferred, SubmitRefused, Submitted
from services.generation.image_records import ImageRecords
from services.generation.replicate import Replicate
from services.generation.schemas import ModelSchemas
from services.generation.state import Generation, Stage
from services.generation.submission import Callbacks, Submission
from services.generation.uploads import Uploads
from services.runtime.storage import open_storage
from tests.integration.generation.harness import REQUEST, Replica, generation_in
from tests.integration.generation.raw_http import Heard, RawServer, raw_server, reply

PRESENT = load_catalog().variant_of(REQUEST).schema.schemas
OTHER: dict[str, Any] = {"Input": {"properties": {"prompt": {}, "num_frames": {}, "seed": {}}}}
REFUSAL = {
    "detail": "- input: num_frames is required",
    "status": 422,
    "invalid_fields": [
        {"type": "required", "field": "input", "description": "num_frames is required"}
    ],
}


class Provider:
    """A provider that publishes `schemas` and takes only what has all of their keys."""

    def __init__(self) -> None:
        self.schemas: dict[str, Any] = dict(PRESENT)
        self.refusal = reply(422, REFUSAL)
        self.creates: list[dict[str, Any]] = []
        self.asked = 0

    async def answer(self, heard: Heard, writer: asyncio.StreamWriter) -> None:
        if heard.method == "GET":
            self.asked += 1
            openapi = {"components": {"schemas": self.schemas}}
            script = reply(200, {"latest_version": {"openapi_schema": openapi}})
        else:
            model_input = json.loads(heard.body)["input"]
            self.creates.append(model_input)
            taken = "num_frames" in model_input
            script = reply(201, {"id": "job", "status": "starting"}) if taken else self.refusal
        await script(heard, writer)


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
async def server(provider: Provider) -> AsyncIterator[RawServer]:
    async with raw_server(provider.answer) as running:
        yield running


@pytest.fixture
async def submission(
    server: RawServer, replica: Replica, tmp_path: Path
) -> AsyncIterator[Submission]:
    replicate = Replicate("r8_secret", server.origin, call_s=5)
    offer = Offer(load_catalog())
    schemas = ModelSchemas(offer, replicate, replica.database, asyncio.Event())
    uploads = Uploads(
        ImageRecords(replica.database), open_storage(f"file://{tmp_path}/videos"), replicate
    )
    callbacks = Callbacks(None, [b"k" * 32], "test")
    yield Submission(replicate, offer, callbacks, replica.claims, uploads, schemas.is_other_than)
    await replicate.close()


def waiting(**changes: Any) -> Generation:
    request = replace(REQUEST, **changes)
    return generation_in(Stage.SUBMITTING, attempt=1, request=request)


async def submitted(
    submission: Submission, generation: Generation
) -> tuple[Attempt, Event, AttemptRecord]:
    attempt = submission.prepare(generation)
    event, record = await submission.submit(
        generation, attempt, datetime.now(UTC), time.monotonic() + 30
    )
    return attempt, event, record


async def test_an_input_for_a_schema_that_is_no_more_is_made_again(
    submission: Submission, provider: Provider
) -> None:
    provider.schemas = OTHER
    generation = waiting()

    first, refused, record = await submitted(submission, generation)
    second, taken, _ = await submitted(submission, replace(generation, attempt=2))

    assert refused == SubmitDeferred(1)
    assert (record.state, record.http_status) == ("REFUSED", 422)
    assert isinstance(taken, Submitted)
    assert [created.keys() for created in provider.creates] == [
        {"prompt", "resolution", "frame_num", "seed"},
        {"prompt", "num_frames", "seed"},
    ]
    assert first.schema_sha256 != second.schema_sha256
    assert provider.asked == 1


async def test_others_that_were_made_for_it_are_made_again_without_another_question(
    submission: Submission, provider: Provider
) -> None:
    provider.schemas = OTHER
    attempts = [submission.prepare(generation) for generation in (waiting(), waiting())]

    events = [
        (await submission.submit(waiting(), one, datetime.now(UTC), time.monotonic() + 30))[0]
        for one in attempts
    ]

    assert events == [SubmitDeferred(1), SubmitDeferred(1)]
    assert provider.asked == 1


@pytest.mark.parametrize(
    "schemas",
    [dict(PRESENT), {"Input": {"properties": {}}}],
    ids=["the same", "not to be believed"],
)
async def test_what_is_refused_under_the_present_schema_is_refused_for_good(
    submission: Submission, provider: Provider, schemas: dict[str, Any]
) -> None:
    provider.schemas = schemas

    _, event, record = await submitted(submission, waiting())

    assert isinstance(event, SubmitRefused)
    assert "num_frames is required" in event.message
    assert (record.state, record.http_status) == ("REFUSED", 422)
    assert len(provider.creates) == 1


async def test_other_refusals_say_nothing_about_the_schema(
    submission: Submission, provider: Provider
) -> None:
    provider.schemas, provider.refusal = OTHER, reply(403, REFUSAL | {"status": 403})

    _, event, _ = await submitted(submission, waiting())

    assert isinstance(event, SubmitRefused)
    assert provider.asked == 0


async def test_what_the_user_chose_and_the_model_lost_is_not_left_out(
    submission: Submission, provider: Provider
) -> None:
    provider.schemas = OTHER
    chosen = waiting(aspect_ratio="9:16")
    _, event, _ = await submitted(submission, chosen)
    assert event == SubmitDeferred(1)

    with pytest.raises(NotOffered, match="no longer has the parameter aspect_ratio"):
        submission.prepare(replace(chosen, attempt=2))
