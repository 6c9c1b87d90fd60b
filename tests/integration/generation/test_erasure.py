"""What is removed from storage, when, and by whom, on both databases."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from services.generation import tables
from services.generation.archive import output_key, thumbnail_key
from services.generation.erasure import PAGE, Erasure
from services.generation.image_records import UPLOAD, ImageRecord, ImageRecords
from services.generation.removals import Removals
from services.generation.state import Generation, Kind, Stage
from services.runtime.storage import Storage, StorageFailed, open_storage
from tests.integration.generation.harness import (
    OUTPUT,
    REQUEST,
    USER,
    Replica,
    body_of,
    delivery,
    eventually,
    generation_in,
    new_id,
)

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@dataclass
class Place:
    """A storage with files, and replicas that remove them."""

    folder: Path
    storage: Storage
    replicas: Sequence[Replica]
    changes: list[Generation]
    stopping: asyncio.Event

    def erasure(self, number: int = 0, retention: timedelta | None = None) -> Erasure:
        database = self.replicas[number].database
        return Erasure(
            Removals(database),
            ImageRecords(database, retention),
            self.storage,
            retention,
            self.changes.append,
            self.stopping,
            interval_s=0.05,
        )

    async def completed(self, **changes: object) -> Generation:
        """A completed generation with its files."""
        finished_at = changes.pop("finished_at", NOW - timedelta(hours=1))
        generation = generation_in(
            Stage.COMPLETED, output=OUTPUT, finished_at=finished_at, charged_credits=10, **changes
        )
        await self.replicas[0].insert(generation)
        for key in keys_of(generation):
            await self.storage.put(key, b"content")
        return generation

    async def image(self, expires_at: datetime, user_id: str = USER) -> ImageRecord:
        """A stored image."""
        image_id = new_id()
        key = f"inputs/{user_id}/{image_id}.jpg"
        record = ImageRecord(image_id, user_id, key, "image/jpeg", 7, 80, 80, NOW)
        records = ImageRecords(self.replicas[0].database)
        await records.begin(record)
        await records.finish(record, image_id.replace("-", "") * 2)
        async with self.replicas[0].database.write() as connection:
            await connection.execute(
                update(tables.images)
                .where(tables.images.c.image_id == image_id)
                .values(expires_at=expires_at)
            )
        await self.storage.put(key, b"content")
        return record

    def has(self, key: str) -> bool:
        return (self.folder / key).is_file()

    def has_video(self, generation: Generation) -> bool:
        present = {self.has(key) for key in keys_of(generation)}
        assert len(present) == 1
        return present.pop()


def keys_of(generation: Generation) -> tuple[str, str]:
    place = (generation.user_id, generation.generation_id)
    return output_key(*place), thumbnail_key(*place)


@pytest.fixture
async def place(replicas: Sequence[Replica], tmp_path: Path) -> AsyncIterator[Place]:
    storage = open_storage((tmp_path / "media").as_uri())
    yield Place(tmp_path / "media", storage, replicas, [], asyncio.Event())
    storage.close()


async def test_what_is_due_is_removed_and_said_so(place: Place) -> None:
    due = await place.completed(
        erase_at=NOW - timedelta(seconds=1), deleted_at=NOW, version=7, fence=9
    )
    later = await place.completed(erase_at=NOW + DAY)
    never = await place.completed()

    await place.erasure().sweep()

    assert [place.has_video(g) for g in (due, later, never)] == [False, True, True]
    erased = await place.replicas[0].now_is(due)
    assert erased.erased_at is not None
    assert (erased.erase_at, erased.version, erased.fence) == (None, 8, 10)
    assert erased.updated_at == erased.erased_at
    assert (
        replace(
            erased,
            erase_at=due.erase_at,
            erased_at=None,
            version=7,
            fence=9,
            updated_at=due.updated_at,
        )
        == due
    )
    assert place.changes == [erased]
    for untouched in (later, never):
        assert await place.replicas[0].now_is(untouched) == untouched


async def test_replicas_share_the_work(place: Place) -> None:
    due = [
        await place.completed(erase_at=NOW - timedelta(seconds=n), deleted_at=NOW)
        for n in range(2 * PAGE + 3)
    ]

    await asyncio.gather(*(place.erasure(n % 2).sweep() for n in range(4)))

    assert not any(place.has_video(generation) for generation in due)
    assert len(place.changes) == len(due)
    assert {g.version for g in place.changes} == {2}


async def test_files_that_the_row_does_not_know_are_removed_too(place: Place) -> None:
    failed = generation_in(
        Stage.FAILED, erase_at=NOW, finished_at=NOW - DAY, deleted_at=NOW - timedelta(hours=1)
    )
    await place.replicas[0].insert(failed)
    for key in keys_of(failed):
        await place.storage.put(key, b"stored just before its process died")

    await place.erasure().sweep()

    assert not place.has_video(failed)


async def test_what_cannot_be_removed_is_tried_again_and_keeps_nothing_else(place: Place) -> None:
    stuck = await place.completed(user_id="stuck", erase_at=NOW - DAY, deleted_at=NOW)
    video = place.folder / keys_of(stuck)[0]
    video.unlink()
    (video / "in the way").mkdir(parents=True)
    other = await place.completed(erase_at=NOW - timedelta(seconds=1), deleted_at=NOW)
    unused = await place.image(NOW - timedelta(seconds=1))

    await place.erasure().sweep()

    assert not place.has_video(other)
    assert not place.has(unused.key)
    waiting = await place.replicas[0].now_is(stuck)
    assert waiting.erased_at is None
    assert waiting.erase_at is not None
    assert waiting.erase_at > NOW


async def test_a_storage_that_is_away_ends_the_sweep(place: Place) -> None:
    first = await place.completed(erase_at=NOW - DAY, deleted_at=NOW)
    for number in range(5):
        generation = await place.completed(user_id=f"user{number}", erase_at=NOW, deleted_at=NOW)
        for key in keys_of(generation):
            (place.folder / key).unlink()
            (place.folder / key / "in the way").mkdir(parents=True)

    with pytest.raises(StorageFailed):
        await place.erasure().sweep()

    # What was removed before is not removed once more.
    assert (await place.replicas[0].now_is(first)).erased_at is not None


async def test_the_loop_goes_on_after_trouble_and_ends_when_told(place: Place) -> None:
    (place.folder / "outputs").write_text("in the way")
    generation = generation_in(Stage.FAILED, erase_at=NOW, finished_at=NOW - DAY)
    await place.replicas[0].insert(generation)
    running = asyncio.create_task(place.erasure().run())

    async def was_tried() -> bool:
        erase_at = (await place.replicas[0].now_is(generation)).erase_at
        return erase_at is not None and erase_at > NOW

    await eventually(was_tried)
    (place.folder / "outputs").unlink()
    async with place.replicas[0].database.write() as connection:
        await connection.execute(update(tables.generations).values(erase_at=NOW))

    async def is_erased() -> bool:
        return (await place.replicas[0].now_is(generation)).erased_at is not None

    await eventually(is_erased)
    place.stopping.set()
    began = time.monotonic()
    await running
    assert time.monotonic() - began < 10


async def test_a_shorter_retention_holds_for_what_ended_under_another(place: Place) -> None:
    old = await place.completed(finished_at=NOW - 3 * DAY)
    later = await place.completed(finished_at=NOW - 3 * DAY, erase_at=NOW + 90 * DAY)
    young = await place.completed(finished_at=NOW - DAY)
    erased = await place.completed(finished_at=NOW - 5 * DAY, erased_at=NOW - DAY)

    await place.erasure(retention=2 * DAY).sweep()

    assert [place.has_video(g) for g in (old, later, young)] == [False, False, True]
    assert await place.replicas[0].now_is(erased) == erased


@pytest.mark.parametrize("retention", [None, 30 * DAY])
async def test_a_longer_retention_or_none_keeps_what_ended_under_a_shorter_one(
    place: Place, retention: timedelta | None
) -> None:
    finished_at = NOW - 3 * DAY
    kept = await place.completed(finished_at=finished_at, erase_at=NOW - DAY)
    deleted = await place.completed(finished_at=finished_at, erase_at=NOW - DAY, deleted_at=NOW)

    await place.erasure(retention=retention).sweep()

    assert [place.has_video(g) for g in (kept, deleted)] == [True, False]
    erase_at = None if retention is None else finished_at + retention
    assert await place.replicas[0].now_is(kept) == replace(kept, erase_at=erase_at)


async def test_a_retention_that_is_new_holds_for_what_is_still_young(place: Place) -> None:
    young = await place.completed(finished_at=NOW - DAY)

    await place.erasure(retention=2 * DAY).sweep()

    assert (await place.replicas[0].now_is(young)).erase_at == NOW + DAY


async def test_an_image_goes_once_its_time_is_over_and_nothing_uses_it(place: Place) -> None:
    expired, fresh, used, unused = [
        await place.image(moment) for moment in (NOW, NOW + DAY, NOW, NOW)
    ]
    for image, changes in (
        (used, {}),
        (unused, {"deleted_at": NOW, "finished_at": NOW - DAY, "stage": Stage.FAILED}),
    ):
        stage = changes.pop("stage", Stage.RUNNING)
        assert isinstance(stage, Stage)
        request = replace(REQUEST, kind=Kind.IMAGE_TO_VIDEO, image_uri=f"{UPLOAD}{image.image_id}")
        await place.replicas[0].insert(generation_in(stage, request=request, **changes))

    await place.erasure().sweep()

    assert [place.has(i.key) for i in (expired, fresh, used, unused)] == [False, True, True, False]
    rows = {row["image_id"]: row for row in await place.replicas[0].rows(tables.images)}
    assert rows.keys() == {fresh.image_id, used.image_id}
    assert rows[used.image_id]["expires_at"] > NOW + timedelta(hours=23)


async def test_images_of_old_generations_go_with_their_videos(place: Place) -> None:
    image = await place.image(NOW)
    request = replace(REQUEST, kind=Kind.IMAGE_TO_VIDEO, image_uri=f"{UPLOAD}{image.image_id}")
    old = await place.completed(request=request, finished_at=NOW - 3 * DAY)

    await place.erasure().sweep()
    assert place.has(image.key)
    async with place.replicas[0].database.write() as connection:
        await connection.execute(update(tables.images).values(expires_at=NOW))
    await place.erasure(retention=2 * DAY).sweep()

    assert not place.has(image.key)
    assert not place.has_video(old)


async def test_an_image_that_is_being_removed_can_no_longer_be_referred_to(place: Place) -> None:
    image = await place.image(NOW)
    records = ImageRecords(place.replicas[1].database)

    (claimed,) = await records.claim_expired(10)

    assert claimed.image_id == image.image_id
    assert not await records.keep(USER, image.image_id)
    assert await records.find(image.image_id) is None
    assert await records.renew(USER, image.image_id.replace("-", "") * 2) is None
    assert list(await records.claim_expired(10)) == []


async def test_an_image_that_is_asked_for_is_not_removed(place: Place) -> None:
    image = await place.image(NOW)

    assert await ImageRecords(place.replicas[1].database).keep(USER, image.image_id)
    await place.erasure().sweep()

    assert place.has(image.key)


async def test_events_go_after_a_week_and_what_they_told_stays(place: Place) -> None:
    replica = place.replicas[0]
    running = await replica.running("job")
    ended = body_of("job", "succeeded")
    await replica.deliver(delivery("old", ended, running.generation_id))
    async with replica.database.write() as connection:
        await connection.execute(
            update(tables.prediction_events).values(recorded_at=NOW - timedelta(days=8))
        )
    await replica.deliver(delivery("young", ended, running.generation_id))

    await place.erasure().sweep()

    kept = await replica.rows(tables.prediction_events)
    assert [row["webhook_id"] for row in kept] == ["young"]
    assert (await replica.now_is(running)).stage is Stage.ARCHIVING
