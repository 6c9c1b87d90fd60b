"""Images that people bring: taken by what they are, and no further read than need be."""

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from services.runtime.errors import Overloaded
from services.web.forms import IMAGE_BYTES_MAX
from services.web.image_places import USER_PLACES_MAX, ImagePlaces
from tests.integration.web.routes.api import OTHER, USER, Api, pointers, refused, wish
from tests.pictures import make_picture

PATH = "/api/uploads"
CHUNK_BYTES = 64 * 1024
BOUNDARY = "x-boundary-x"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
PICTURE = make_picture()


def part(content: bytes, disposition: str = 'form-data; name="image"; filename="a.png"') -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n".encode()
    return head + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


class Sender:
    """A body that is sent in pieces, and counts those that were taken."""

    def __init__(self, body: Iterator[bytes]) -> None:
        self._body = body
        self.sent_bytes = 0

    async def pieces(self) -> AsyncIterator[bytes]:
        for piece in self._body:
            self.sent_bytes += len(piece)
            yield piece


def pieces_of(body: bytes, size: int = CHUNK_BYTES) -> Iterator[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))


async def send(api: Api, body: bytes, path: str = PATH, **headers: str) -> httpx.Response:
    return await api.post(path, content=body, headers={"Content-Type": FORM} | headers)


def of_size(size_bytes: int) -> bytes:
    """A JPEG of this many bytes: what follows its end is no part of the picture."""
    picture = make_picture("JPEG")
    return picture + b"\x00" * (size_bytes - len(picture))


@pytest.mark.parametrize("picture_format", ["JPEG", "PNG", "WEBP"])
async def test_an_image_is_stored_and_described(api: Api, picture_format: str) -> None:
    answer = await api.post(PATH, files={"image": make_picture(picture_format)})

    stored = answer.json()
    assert answer.status_code == 201, answer.text
    assert stored["image_uri"].startswith("upload:")
    assert stored["content_type"] == f"image/{picture_format.lower()}"
    assert (stored["width_pixels"], stored["height_pixels"]) == (160, 96)
    assert stored["expire_time"].endswith("Z")
    assert set(stored) == set(api.app.openapi()["components"]["schemas"]["Image"]["properties"])


async def test_the_same_image_is_the_same_and_each_user_s_own(api: Api) -> None:
    first = await api.post(PATH, files={"image": PICTURE})
    again = await api.post(PATH, files={"image": ("other name.jpg", PICTURE, "image/jpeg")})
    theirs = await api.post(PATH, files={"image": PICTURE}, user=OTHER)

    assert again.json()["image_uri"] == first.json()["image_uri"]
    assert theirs.json()["image_uri"] != first.json()["image_uri"]


async def test_an_image_of_just_ten_mebibytes_is_taken_in_any_pieces(api: Api) -> None:
    body = part(of_size(IMAGE_BYTES_MAX)) + END

    whole = await send(api, body)
    odd = await api.post(
        PATH, content=Sender(pieces_of(body, 65_521)).pieces(), headers={"Content-Type": FORM}
    )

    assert (whole.status_code, odd.status_code) == (201, 201), whole.text
    assert odd.json()["image_uri"] == whole.json()["image_uri"]


@pytest.mark.parametrize("path", [PATH, "/api/generation/image-to-video"])
async def test_one_byte_more_is_refused_and_the_rest_is_not_read(api: Api, path: str) -> None:
    too_large = part(of_size(IMAGE_BYTES_MAX + 1))
    sender = Sender(pieces_of(too_large + b"x" * 50 * 1024 * 1024))

    answer = await api.post(path, content=sender.pieces(), headers={"Content-Type": FORM})

    refused(answer, 413, "IMAGE_TOO_LARGE")
    assert pointers(answer) == ["/image"]
    assert sender.sent_bytes <= len(too_large) + 2 * CHUNK_BYTES
    assert not (api.services.files / "inputs").exists()


async def test_what_announces_too_much_is_not_read_at_all(api: Api) -> None:
    sender = Sender(pieces_of(b"x" * 50 * 1024 * 1024))

    answer = await api.post(
        PATH,
        content=sender.pieces(),
        headers={"Content-Type": FORM, "Content-Length": str(50 * 1024 * 1024)},
    )

    assert answer.status_code == 413, answer.text
    assert sender.sent_bytes <= 2 * CHUNK_BYTES


async def test_a_length_that_lies_changes_nothing(api: Api) -> None:
    large = Sender(pieces_of(part(of_size(IMAGE_BYTES_MAX + 1)) + END))
    small = part(PICTURE) + END

    less = await api.post(
        PATH, content=large.pieces(), headers={"Content-Type": FORM, "Content-Length": "100"}
    )
    more = await send(api, small, **{"Content-Length": str(len(small) + 1000)})
    nonsense = await send(api, small, **{"Content-Length": "ten"})

    refused(less, 413, "IMAGE_TOO_LARGE")
    assert more.status_code == 201
    assert nonsense.status_code in (400, 413)


@pytest.mark.parametrize(
    "content",
    [
        b"<html><script>alert(1)</script></html>",
        b"GIF89a" + b"\x00" * 100,
        b"%PDF-1.7" + b"\x00" * 100,
        b"RIFF\x00\x00\x00\x00WAVE" + b"\x00" * 100,
        b"\x89PNG",
        b"\xff\xd8",
        b"MZ",
        b"\x00",
    ],
)
async def test_what_is_no_image_is_refused_whatever_it_says_it_is(api: Api, content: bytes) -> None:
    for name, kind in (("photo.png", "image/png"), ("photo.jpg", "image/jpeg")):
        answer = await api.post(PATH, files={"image": (name, content, kind)})

        refused(answer, 415, "NOT_AN_IMAGE")
        assert pointers(answer) == ["/image"]


async def test_what_is_no_image_is_refused_after_its_first_bytes(api: Api) -> None:
    sender = Sender(pieces_of(part(b"#!/bin/sh\n" + b"x" * 9 * 1024 * 1024) + END))

    answer = await api.post(PATH, content=sender.pieces(), headers={"Content-Type": FORM})

    refused(answer, 415, "NOT_AN_IMAGE")
    assert sender.sent_bytes <= 2 * CHUNK_BYTES


async def test_an_image_is_taken_whatever_it_is_called(api: Api) -> None:
    answer = await api.post(PATH, files={"image": ("../../evil.sh", PICTURE, "text/html")})

    assert answer.status_code == 201
    assert answer.json()["content_type"] == "image/png"


async def test_what_only_begins_like_an_image_is_refused_by_name(api: Api) -> None:
    small = io.BytesIO()
    Image.new("RGB", (63, 64)).save(small, "PNG")
    for content in (PICTURE[:200], b"\x89PNG\r\n\x1a\n" + b"x" * 500, small.getvalue()):
        answer = await api.post(PATH, files={"image": content})

        refused(answer, 422, "IMAGE_NOT_ACCEPTED")
        assert pointers(answer) == ["/image"]


FORMS: list[tuple[str, bytes, int, list[str]]] = [
    ("nothing", b"", 422, [""]),
    ("no parts", END, 422, ["/image"]),
    ("an empty file", part(b"") + END, 422, ["/image"]),
    ("no end", part(PICTURE), 422, [""]),
    ("cut off", part(PICTURE)[:100], 422, [""]),
    ("no name", part(PICTURE, "form-data") + END, 422, [""]),
    (
        "no disposition",
        part(PICTURE, "x").replace(b"Disposition", b"X") + END,
        422,
        [""],
    ),
    ("another name", part(PICTURE, 'form-data; name="file"') + END, 422, ["/file"]),
    ("twice", part(PICTURE) * 2 + END, 422, ["/image"]),
    ("many parts", part(b"", 'form-data; name="image"') * 1000 + END, 422, ["/image"]),
    (
        "another field",
        part(b"x", 'form-data; name="prompt"') + part(PICTURE) + END,
        422,
        ["/prompt"],
    ),
    ("a path", part(b"x", 'form-data; name="a/b~c"') + END, 422, ["/a~1b~0c"]),
    ("a long header", part(PICTURE, 'form-data; name="image"; x="' + "y" * 9000 + '"'), 422, [""]),
    ("no text as a name", part(b"x", "x").replace(b": x", b': f; name="\xff"') + END, 422, [""]),
    ("another boundary", part(PICTURE).replace(b"x-b", b"y-b") + END, 422, [""]),
]


async def test_forms_that_are_none_are_refused(api: Api) -> None:
    for name, body, status, fields in FORMS:
        answer = await send(api, body)

        assert answer.status_code == status, (name, answer.text)
        assert pointers(answer) == fields, (name, answer.text)
    assert not (api.services.files / "inputs").exists()


async def test_the_fields_of_a_form_are_few_and_small(api: Api) -> None:
    names = ["prompt", "model", "resolution", "negative_prompt", "seed"]
    path = "/api/generation/image-to-video"
    field = 'form-data; name="{}"'.format

    large = await send(api, part(b"x" * 9000, field("prompt")) + part(PICTURE) + END, path)
    twice = await send(api, part(b"x", field("prompt")) * 2 + part(PICTURE) + END, path)
    binary = await send(
        api, b"".join(part(b"\xff\xfe", field(name)) for name in names) + part(PICTURE) + END, path
    )

    for answer, pointer in ((large, "/prompt"), (twice, "/prompt"), (binary, "/prompt")):
        refused(answer, 422, answer.json()["code"])
        assert pointers(answer) == [pointer]


async def test_a_body_of_another_type_is_refused(api: Api) -> None:
    for content_type in ("", "image/png", "application/json", "multipart/mixed; boundary=x"):
        headers = {"Content-Type": content_type} if content_type else {}
        answer = await api.post(PATH, content=PICTURE, headers=headers)

        assert answer.status_code == 415, content_type
    for content_type in ("multipart/form-data", "multipart/form-data; boundary=" + "x" * 300):
        answer = await send(api, part(PICTURE) + END, **{"Content-Type": content_type})

        refused(answer, 422, "MALFORMED_FORM")


async def test_nobody_uploads_without_signing_in(api: Api) -> None:
    sender = Sender(pieces_of(part(of_size(IMAGE_BYTES_MAX)) + END))

    answer = await api.http.post(PATH, content=sender.pieces(), headers={"Content-Type": FORM})

    assert answer.status_code == 401
    assert sender.sent_bytes <= CHUNK_BYTES


async def test_an_upload_starts_a_video(api: Api) -> None:
    image_uri = (await api.post(PATH, files={"image": PICTURE})).json()["image_uri"]
    body: dict[str, Any] = wish(model="i2v-14B", image_uri=image_uri)

    created = await api.post("/api/generation/image-to-video", json=body)
    done = await api.reaches(created.json()["generation_id"], "COMPLETED")

    assert done["image_uri"] == image_uri
    assert await api.balance(USER) == (90, 0)


async def test_one_user_has_few_images_under_way_and_takes_no_place_from_others(api: Api) -> None:
    body = part(PICTURE) + END
    at_work: asyncio.Queue[asyncio.Event] = asyncio.Queue()

    async def slowly() -> AsyncIterator[bytes]:
        yield body[:50]
        go_on = asyncio.Event()
        at_work.put_nowait(go_on)
        await go_on.wait()
        yield body[50:]

    async with asyncio.TaskGroup() as tasks:
        slow = [
            tasks.create_task(api.post(PATH, content=slowly(), headers={"Content-Type": FORM}))
            for _ in range(USER_PLACES_MAX)
        ]
        waiting = [await at_work.get() for _ in slow]
        another = await api.post(PATH, files={"image": PICTURE})
        theirs = await api.post(PATH, files={"image": PICTURE}, user=OTHER)
        # The first is let on, and its place is the next one's.
        waiting[0].set()
        await asyncio.wait(slow, return_when=asyncio.FIRST_COMPLETED)
        after = await api.post(PATH, files={"image": PICTURE})
        for task in slow:
            task.cancel()

    refused(another, 429, "TOO_MANY_UPLOADS")
    assert int(another.headers["Retry-After"]) >= 1
    assert theirs.status_code == 201
    assert after.status_code == 201


async def test_many_who_send_slowly_take_no_place_from_others(api: Api) -> None:
    body = part(PICTURE) + END
    at_work: asyncio.Queue[None] = asyncio.Queue()

    async def slowly() -> AsyncIterator[bytes]:
        yield body[:17]
        at_work.put_nowait(None)
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as tasks:
        slow = [
            tasks.create_task(
                api.post(PATH, content=slowly(), headers={"Content-Type": FORM}, user=f"slow{n}")
            )
            for n in range(40)
        ]
        for _ in slow:
            await at_work.get()
        answer = await api.post(PATH, files={"image": PICTURE})
        for task in slow:
            task.cancel()

    assert answer.status_code == 201


async def test_an_image_is_refused_when_memory_is_full_of_others(api: Api) -> None:
    places = api.parts.image_places
    with places.hold("eve") as place:
        place.take(places.bytes_left - len(PICTURE))

        refusal = await api.post(PATH, files={"image": PICTURE})
        form = {"prompt": "a fox", "model": "i2v-14B", "resolution": "480p"}
        path = "/api/generation/image-to-video"
        created = await api.post(path, files={"image": PICTURE}, data=form)

    refused(refusal, 429, "TOO_MANY_UPLOADS")
    refused(created, 429, "TOO_MANY_UPLOADS")
    assert (await api.post(PATH, files={"image": PICTURE})).status_code == 201


def test_bytes_are_given_back_with_their_place() -> None:
    places = ImagePlaces(bytes_max=100, user_places_max=1)

    with places.hold("ada") as ada, places.hold("eve") as eve:
        ada.take(60)
        eve.take(40)
        with pytest.raises(Overloaded):
            eve.take(1)
        with pytest.raises(Overloaded), places.hold("ada"):
            pass
    with places.hold("bob") as bob:
        bob.take(100)


async def test_few_images_are_handed_on_at_once_and_none_waits_for_long() -> None:
    places = ImagePlaces(turns_max=2, turn_s_max=0.1)

    async with places.turn(), places.turn():
        with pytest.raises(Overloaded):
            await places.turn().__aenter__()
    async with places.turn(), places.turn():
        pass
