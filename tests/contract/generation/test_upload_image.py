"""UploadImage as a caller sees it."""

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from reelworks.generation.v1 import generation_pb2

from services.runtime.errors import InvalidRequest, Overloaded, Unavailable
from tests.contract.generation.harness import Kind, Service, refusal, violations
from tests.integration.generation.harness import USER, eventually
from tests.pictures import make_picture
from tests.stuck_judge import is_alive, judge_is_stuck


async def test_an_image_can_be_used_for_a_video(service: Service) -> None:
    content = make_picture("WEBP", (320, 192))

    image = await service.call("UploadImage", user_id=USER, content=content)

    assert image.image_uri.startswith("upload:")
    assert str(uuid.UUID(image.image_uri.removeprefix("upload:"))) in image.image_uri
    assert (image.content_type, image.width_pixels, image.height_pixels) == ("image/webp", 320, 192)
    (stored,) = [path for path in service.files.rglob("*") if path.is_file()]
    assert stored.stat().st_size == image.size_bytes
    left = image.expire_time.ToDatetime(UTC) - datetime.now(UTC)
    assert timedelta(hours=23) < left <= timedelta(hours=24)
    made = await service.create(
        kind=Kind.IMAGE_TO_VIDEO, model="i2v-14B", image_uri=image.image_uri
    )
    assert made.image_uri == image.image_uri


async def test_the_same_image_again_is_the_same_image(service: Service) -> None:
    content = make_picture()

    first = await service.call("UploadImage", user_id=USER, content=content)
    again = await service.call("UploadImage", user_id=USER, content=content)
    other = await service.call("UploadImage", user_id="eve", content=content)

    assert again.image_uri == first.image_uri != other.image_uri


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"GIF89a", "must be a JPEG, PNG or WebP image, whatever its name says"),
        (make_picture()[:-30], "must be a whole image that is not damaged"),
        (make_picture("PNG", (10, 10)), "must have at least 64 by 64 pixels, has 10 by 10"),
        (b"\xff\xd8\xff" + b"\0" * 10 * 2**20, "must have at most 10 MiB, has 10.0"),
    ],
)
async def test_an_image_that_is_not_accepted_is_refused_with_the_rule(
    service: Service, content: bytes, rule: str
) -> None:
    reason, found = await violations(service.call("UploadImage", user_id=USER, content=content))

    assert reason == "IMAGE_NOT_ACCEPTED"
    assert found == {"content": rule}
    assert list(service.files.rglob("*")) == []


async def test_the_largest_image_gets_through_and_a_larger_message_does_not(
    service: Service,
) -> None:
    base = make_picture()
    # What stands behind the image is not kept, but counts.
    largest = base + b"\0" * (10 * 2**20 - len(base))

    stored = await service.call("UploadImage", user_id=USER, content=largest)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await service.stub.UploadImage(
            generation_pb2.UploadImageRequest(user_id=USER, content=b"\0" * 12 * 2**20), timeout=10
        )

    assert stored.size_bytes < 10_000
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_an_image_is_judged_no_longer_than_its_caller_waits(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = judge_is_stuck(tmp_path, monkeypatch)
    request = generation_pb2.UploadImageRequest(user_id=USER, content=make_picture())
    first, waiting = (service.stub.UploadImage(request, timeout=30) for _ in range(2))

    async def is_judged() -> bool:
        return bool(begun())

    async def is_over() -> bool:
        return not is_alive(begun()[0])

    await eventually(is_judged)
    with pytest.raises(Overloaded):
        await service.call("UploadImage", user_id=USER, content=make_picture())
    waiting.cancel()
    first.cancel()
    await eventually(is_over)
    assert len(begun()) == 1


async def test_what_must_be_set_is_named(service: Service) -> None:
    reason, found = await violations(service.call("UploadImage", user_id="", content=b""))

    assert reason == "INVALID_FIELD"
    assert found.keys() == {"user_id", "content"}


async def test_nobody_uses_another_s_image(service: Service) -> None:
    image = await service.call("UploadImage", user_id="eve", content=make_picture())

    for uri in (image.image_uri, f"upload:{uuid.uuid4()}"):
        for method, wanted_id in (("CreateGeneration", {"generation_id": str(uuid.uuid4())}),
                                  ("QuoteGeneration", {})):  # fmt: skip
            call = service.call(
                method,
                user_id=USER,
                kind=Kind.IMAGE_TO_VIDEO,
                model="i2v-14B",
                resolution="480p",
                prompt="a red fox running through fresh snow",
                image_uri=uri,
                **wanted_id,
            )
            reason, found = await violations(call)
            assert reason == "IMAGE_NOT_ACCEPTED"
            assert "uploaded" in found["image_uri"]


async def test_storage_that_does_not_work_is_told(service: Service) -> None:
    (service.files / "inputs").write_text("in the way")

    reason, _ = await refusal(
        Unavailable, service.call("UploadImage", user_id=USER, content=make_picture())
    )
    (service.files / "inputs").unlink()
    stored = await service.call("UploadImage", user_id=USER, content=make_picture())

    assert reason == "STORAGE_UNAVAILABLE"
    assert stored.image_uri


async def test_other_calls_take_no_larger_messages_than_they_need(service: Service) -> None:
    now = datetime.now(UTC)
    with pytest.raises(InvalidRequest) as refused:
        await service.deliver(webhook_id="msg_1", payload=b"x" * (8 * 2**20 + 1), received_time=now)

    assert [violation.field for violation in refused.value.violations] == ["payload"]
