import base64
import io

import av
import pytest
from PIL import Image

from tests.integration.simulator.harness import Receiver, Running, Start

MODEL = "wavespeedai/wan-2.1-i2v-480p"
RED = (220, 30, 30)


def picture(width: int = 640, height: int = 640) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (width, height), RED).save(target, "PNG")
    return target.getvalue()


async def animate(running: Running, image: str) -> dict[str, object]:
    body = {"input": {"prompt": "it moves", "image": image, "seed": 1}}
    status, created = await running.call("POST", f"/models/{MODEL}/predictions", json=body)
    assert status == 201, created
    return await running.reaches(created["id"], "succeeded", "failed")


async def test_the_image_is_fetched_and_gives_the_video_its_shape(
    start: Start, receiver: Receiver
) -> None:
    running = await start()
    receiver.files["/cat.png"] = picture(600, 900)

    ended = await animate(running, f"{receiver.address}/cat.png?k=a%2Fb")

    assert ended["status"] == "succeeded"
    async with running.session.get(str(ended["output"])) as response:
        content = io.BytesIO(await response.read())
    with av.open(content, "r") as container:
        frame = next(container.decode(video=0))
    assert (frame.width, frame.height) == (512, 768)
    # PyAV's own types leave this method out.
    middle = frame.to_image().getpixel((256, 384))  # type: ignore[no-untyped-call]
    assert isinstance(middle, tuple)
    assert all(abs(seen - sent) < 25 for seen, sent in zip(middle, RED, strict=True))


async def test_an_uploaded_file_and_a_data_address_are_images_too(start: Start) -> None:
    running = await start()
    _, file = await running.upload(picture())
    data = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"

    for image in (file["urls"]["get"], data):
        assert (await animate(running, image))["status"] == "succeeded"


@pytest.mark.parametrize(
    ("image", "error"),
    [
        ("{receiver}/none.png", "HTTP 404"),
        ("{receiver}/text.png", "Could not read image"),
        ("http://127.0.0.1:1/cat.png", "Could not fetch image"),
        ("https://example.org/cat.png", "host example.org"),
        ("file:///etc/passwd", "Could not fetch image"),
        ("data:image/png;base64,?", "Could not fetch image"),
        ("{api}/v1/files/none", "no such uploaded file"),
    ],
)
async def test_an_image_that_cannot_be_had_fails_the_prediction(
    start: Start, receiver: Receiver, image: str, error: str
) -> None:
    running = await start()
    receiver.files["/text.png"] = b"no picture"

    ended = await animate(
        running, image.format(receiver=receiver.address, api=running.addresses.api)
    )

    assert ended["status"] == "failed"
    assert error in str(ended["error"])
