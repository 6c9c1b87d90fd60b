"""Image to video: what the provider is sent for an image, and what happens when it cannot be."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.generation import tables
from services.generation.catalog import Offer, load_catalog
from services.generation.events import SubmitDeferred, SubmitRefused, Submitted
from services.generation.image_records import UPLOAD, ImageRecord, ImageRecords
from services.generation.replicate import Replicate
from services.generation.state import Generation, Kind
from services.generation.submission import Callbacks, Submission
from services.generation.uploads import Uploads
from services.runtime.storage import Storage, open_storage
from tests.integration.generation.harness import REQUEST, USER, Replica, beginning
from tests.integration.generation.raw_http import Heard, RawServer, raw_server, reply
from tests.pictures import make_picture

COPY = "https://api.replicate.com/v1/files/abc"
I2V = replace(REQUEST, kind=Kind.IMAGE_TO_VIDEO, model="i2v-14B")


@dataclass
class Scene:
    """A submission, its images and its provider."""

    submission: Submission
    uploads: Uploads
    storage: Storage
    provider: RawServer
    replica: Replica

    async def upload(self) -> ImageRecord:
        image = await self.uploads.judge(USER, make_picture())
        return image if isinstance(image, ImageRecord) else await self.uploads.store(image)

    async def submit(self, image_uri: str) -> tuple[Generation, object, object]:
        """Submits a generation that starts from an image; returns its event and its record."""
        begun = beginning(request=replace(I2V, image_uri=image_uri))
        ready = await self.replica.ready(begun)
        claimed = await self.replica.claims.claim_ready(10, self.submission.prepare)
        generation, attempt = next(
            (g, a) for g, a in claimed if g.generation_id == ready.generation_id
        )
        event, record = await self.submission.submit(
            generation, attempt, generation.stage_since, time.monotonic() + 10
        )
        return generation, event, record

    def creates(self) -> list[Heard]:
        return [heard for heard in self.provider.heard if heard.path.endswith("/predictions")]


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.fixture
async def scene(replica: Replica, tmp_path: Path) -> AsyncIterator[Scene]:
    async def answer(heard: Heard, writer: asyncio.StreamWriter) -> None:
        expires_at = (datetime.now(UTC) + timedelta(hours=24)).isoformat()
        body: dict[str, object] = {"id": "job1", "status": "starting"}
        if heard.path == "/v1/files":
            body = {"id": "abc", "urls": {"get": COPY}, "expires_at": expires_at}
        await reply(201, body)(heard, writer)

    storage = open_storage((tmp_path / "media").as_uri())
    async with raw_server(answer) as server:
        provider = Replicate("r8_token", server.origin, 5.0)
        uploads = Uploads(ImageRecords(replica.database), storage, provider)
        submission = Submission(
            provider,
            Offer(load_catalog()),
            Callbacks(None, (b"k" * 32,), "local"),
            replica.claims,
            uploads,
            never,
        )
        try:
            yield Scene(submission, uploads, storage, server, replica)
        finally:
            await provider.close()
            storage.close()


async def never(_model: str, _digest: str) -> bool:
    return False


async def test_the_provider_is_sent_an_address_and_the_reference_is_recorded(scene: Scene) -> None:
    image = await scene.upload()
    uri = f"{UPLOAD}{image.image_id}"

    generation, event, _ = await scene.submit(uri)

    assert isinstance(event, Submitted)
    (create,) = scene.creates()
    assert json.loads(create.body)["input"]["image"] == COPY
    (attempt,) = await scene.replica.rows(tables.attempts, generation_id=generation.generation_id)
    assert json.loads(attempt["input"])["image"] == uri


async def test_an_address_of_the_caller_is_sent_as_it_is(scene: Scene) -> None:
    _, event, _ = await scene.submit("https://example.com/cat.png")

    assert isinstance(event, Submitted)
    (create,) = scene.creates()
    assert json.loads(create.body)["input"]["image"] == "https://example.com/cat.png"
    assert len(scene.provider.heard) == 1


async def test_without_its_image_a_generation_is_refused_and_nothing_is_sent(
    scene: Scene,
) -> None:
    _, event, _ = await scene.submit(f"{UPLOAD}{uuid.uuid4()}")

    assert isinstance(event, SubmitRefused)
    assert "upload it again" in event.message
    assert scene.creates() == []


async def test_while_the_image_cannot_be_handed_over_nothing_is_sent_and_it_is_tried_again(
    scene: Scene,
) -> None:
    image = await scene.upload()
    scene.provider.script = reply(503, b"")

    _, event, record = await scene.submit(f"{UPLOAD}{image.image_id}")

    assert isinstance(event, SubmitDeferred)
    assert getattr(record, "state", None) == "NOT_SENT"
    assert scene.creates() == []
