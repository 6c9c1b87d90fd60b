"""Every way in which what people upload is no good, and what is left of what is."""

import io
import struct
import warnings
import zlib
from typing import Any

import pytest
from PIL import ExifTags, Image, ImageCms

from services.generation import images as images_module
from services.generation.images import (
    IMAGE_BYTES_MAX,
    SCANS_MAX,
    ImageFormat,
    NotAccepted,
    StillImage,
    judge_image,
)
from tests.pictures import make_picture

FORMATS = ["JPEG", "PNG", "WEBP"]
MARK = b"GPS-and-name-of-the-owner"


def opened(image: StillImage) -> Image.Image:
    return Image.open(io.BytesIO(image.content), formats=[image.format.value])


def refusal(content: bytes) -> str:
    """The rule that an image breaks, which names no library and no line of code."""
    with pytest.raises(NotAccepted) as refused:
        judge_image(content)
    rule = str(refused.value)
    assert rule.startswith("must ")
    assert "\n" not in rule
    assert len(rule) < 150
    return rule


def chunk(name: bytes, data: bytes) -> bytes:
    body = name + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(
    width: int, height: int, *chunks: bytes, pixels: bytes | None = None, bits: int = 8
) -> bytes:
    """A PNG of a given head; by default with all its pixels."""
    rows = (b"\0" + b"\7" * 3 * width) * height if pixels is None else pixels
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + body


@pytest.mark.parametrize("name", FORMATS)
def test_an_image_stays_what_it_is_and_looks_the_same(name: str) -> None:
    image = judge_image(make_picture(name))

    shown = opened(image).convert("RGB")
    assert image.format is ImageFormat[name]
    assert (image.width_pixels, image.height_pixels) == shown.size == (160, 96)
    corner, rest = shown.getpixel((20, 20)), shown.getpixel((150, 90))
    assert isinstance(corner, tuple)
    assert isinstance(rest, tuple)
    assert corner[0] > 240 > 20 > corner[2]
    assert rest[2] > 240 > 20 > rest[0]


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_content_becomes_the_same_bytes(name: str) -> None:
    content = make_picture(name)

    assert judge_image(content) == judge_image(content)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_its_camera_was_held(name: str, orientation: int) -> None:
    # Where the red corner of the stored pixels is seen, by EXIF 2.32, section 4.6.4.
    corners = {
        1: (0, 0), 2: (1, 0), 3: (1, 1), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation

    shown = opened(judge_image(make_picture(name, exif=exif))).convert("RGB")

    assert shown.size == ((160, 96) if orientation < 5 else (96, 160))
    right, down = corners[orientation]
    pixel = shown.getpixel((10 + right * (shown.width - 20), 10 + down * (shown.height - 20)))
    assert isinstance(pixel, tuple)
    assert pixel[0] > 200 > 60 > pixel[2]
    assert ExifTags.Base.Orientation not in shown.getexif()


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_but_the_pixels_is_kept(name: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = MARK.decode()
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSDateStamp] = MARK.decode()
    content = make_picture(name, exif=exif, icc_profile=MARK * 10, xmp=MARK) + MARK
    assert content.count(MARK) >= 3

    kept = judge_image(content)

    assert MARK not in kept.content
    shown = opened(kept)
    assert not shown.getexif()
    assert not {"exif", "icc_profile", "xmp", "comment"} & shown.info.keys()


def test_what_hides_behind_an_image_is_not_kept() -> None:
    script = b"<script>alert(1)</script>PK\x03\x04 a whole archive"
    comment = chunk(b"tEXt", b"Comment\0" + script)

    for content in (png(80, 80, comment) + script, make_picture("JPEG", comment=script) + script):
        assert script in content
        assert script not in judge_image(content).content


def test_a_transparent_image_stays_so() -> None:
    content = io.BytesIO()
    Image.new("RGBA", (80, 80), (255, 0, 0, 40)).save(content, "PNG")

    assert opened(judge_image(content.getvalue())).getpixel((5, 5)) == (255, 0, 0, 40)


@pytest.mark.parametrize(
    ("mode", "name", "gray"),
    [("1", "PNG", 255), ("L", "PNG", 200), ("P", "PNG", 200), ("LA", "PNG", 200),
     ("I;16", "PNG", 200), ("L", "JPEG", 200), ("CMYK", "JPEG", 55)],
)  # fmt: skip
def test_every_kind_of_pixels_becomes_the_common_one(mode: str, name: str, gray: int) -> None:
    values: dict[str, Any] = {
        "1": 1,
        "I;16": 200 * 256,
        "LA": (200, 255),
        "CMYK": (200,) * 3 + (0,),
    }
    source = Image.new("L" if mode == "P" else mode, (80, 80), values.get(mode, 200))
    content = io.BytesIO()
    source.convert(mode).save(content, name)

    pixel = opened(judge_image(content.getvalue())).convert("RGB").getpixel((5, 5))

    assert isinstance(pixel, tuple)
    assert all(abs(value - gray) < 4 for value in pixel)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xd8",
        b"<html>image.jpg</html>",
        b"GIF89a" + b"\0" * 100,
        b"%PDF-1.7",
        b"RIFF\x10\0\0\0WAVEfmt ",
        b"BM" + make_picture("BMP")[2:],
        make_picture("TIFF"),
        make_picture("GIF"),
        b" " + make_picture("PNG"),
    ],
)
def test_other_files_are_refused_whatever_they_are_called(content: bytes) -> None:
    assert "JPEG, PNG or WebP" in refusal(content)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_cut_image_is_refused(name: str, share: float) -> None:
    content = io.BytesIO()
    Image.effect_noise((300, 200), 80).convert("RGB").save(content, name)

    assert "damaged" in refusal(content.getvalue()[: int(len(content.getvalue()) * share)])


@pytest.mark.parametrize("name", FORMATS)
def test_the_start_of_an_image_before_other_things_is_refused(name: str) -> None:
    content = make_picture(name)

    assert "damaged" in refusal(content[:16] + b"<script>" * 200)


def test_a_wrong_check_sum_is_refused() -> None:
    content = bytearray(make_picture("PNG"))
    content[-20] ^= 1

    assert "damaged" in refusal(bytes(content))


def test_a_png_that_lacks_pixels_is_refused() -> None:
    assert "damaged" in refusal(png(100, 100, pixels=b"\0" * 500))


@pytest.mark.parametrize(
    "content",
    [
        png(50_000, 50_000, pixels=b"\0" * 1000),
        png(9_000, 9_000, pixels=b"\0" * 1000),
        png(20_000, 100, pixels=b"\0" * 1000),
        # A WebP whose canvas is said to have 268 million pixels.
        b"RIFF\x1a\0\0\0WEBPVP8X\x0a\0\0\0" + b"\0" * 4 + b"\xfe\x3f\0" * 2,
    ],
)
def test_a_bomb_of_pixels_is_refused_before_it_is_decoded(content: bytes) -> None:
    rule = refusal(content)

    assert "40 million pixels" in rule or "damaged" in rule


@pytest.mark.parametrize("side", [10_000, 14_000])
def test_too_many_pixels_are_refused_without_a_warning(side: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rule = refusal(png(side, side, pixels=b"\0" * 1000))

    assert rule.endswith(f"has {side} by {side}")


@pytest.mark.parametrize(
    "bomb",
    [
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 20_000_000)),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(b"a" * 20_000_000)),
        chunk(b"iCCP", b"profile\0\0" + zlib.compress(b"a" * 20_000_000)),
    ],
    ids=["zTXt", "iTXt", "iCCP"],
)
def test_a_bomb_of_text_is_refused(bomb: bytes) -> None:
    assert "damaged" in refusal(png(80, 80, bomb))


def test_a_bomb_of_scans_is_refused() -> None:
    content = make_picture("JPEG", (400, 300), progressive=True)
    last_scan = content[content.rindex(b"\xff\xda") : -2]

    assert judge_image(content)
    assert "scans" in refusal(content[:-2] + last_scan * SCANS_MAX + content[-2:])


@pytest.mark.parametrize("size", [(63, 200), (200, 63), (1, 1)])
def test_an_image_that_is_too_small_is_refused(size: tuple[int, int]) -> None:
    assert "at least 64 by 64" in refusal(make_picture("PNG", size))


def test_the_smallest_image_is_taken() -> None:
    assert judge_image(make_picture("PNG", (64, 64))).width_pixels == 64


@pytest.mark.parametrize("name", ["PNG", "WEBP"])
def test_an_animation_is_refused(name: str) -> None:
    frames = [Image.new("RGB", (80, 80), color) for color in ("red", "green", "blue")]
    content = io.BytesIO()
    frames[0].save(content, name, save_all=True, append_images=frames[1:], duration=100)

    assert "animation" in refusal(content.getvalue())


def test_of_a_phone_s_photo_with_a_second_picture_the_photo_is_taken() -> None:
    frames = [Image.new("RGB", (80, 80), color) for color in ("red", "blue")]
    content = io.BytesIO()
    frames[0].save(content, "MPO", save_all=True, append_images=frames[1:])

    kept = judge_image(content.getvalue())

    pixel = opened(kept).getpixel((5, 5))
    assert isinstance(pixel, tuple)
    assert pixel[0] > 240 > 20 > pixel[2]
    assert len(kept.content) < len(content.getvalue())


def test_the_limit_of_size_is_exact() -> None:
    content = png(80, 80)
    padded = png(80, 80, chunk(b"prIv", b"\0" * (IMAGE_BYTES_MAX - len(content) - 12)))
    assert len(padded) == IMAGE_BYTES_MAX

    assert judge_image(padded)
    assert "10 MiB" in refusal(padded + b"\0")


def test_more_than_memory_and_time_allow_is_refused_before_it_is_unpacked() -> None:
    rule = refusal(png(8000, 5000, pixels=b"", bits=16))

    assert "at most 160 MB of pixels, has 240" in rule


def test_an_image_that_grows_when_it_is_made_anew_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(images_module, "STORED_BYTES_MAX", 100)

    assert "packed anew" in refusal(make_picture("PNG"))


@pytest.mark.parametrize("name", ["JPEG", "PNG"])
def test_gray_stays_gray_and_does_not_grow_to_three_colors(name: str) -> None:
    content = io.BytesIO()
    Image.linear_gradient("L").save(content, name)

    assert opened(judge_image(content.getvalue())).mode == "L"


def test_what_nobody_sees_is_not_kept() -> None:
    picture = Image.new("RGBA", (100, 100), (200, 100, 50, 0))
    picture.paste((10, 20, 30, 1), (0, 0, 50, 100))
    content = io.BytesIO()
    picture.save(content, "PNG")

    left = opened(judge_image(content.getvalue()))

    assert left.getpixel((0, 0)) == (10, 20, 30, 1)
    assert left.getpixel((99, 99)) == (0, 0, 0, 0)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colors_are_those_that_the_profile_means(mode: str) -> None:
    picture = Image.new(mode, (100, 100), "red")
    content = io.BytesIO()
    picture.save(content, "PNG", icc_profile=swapped_profile())

    left = opened(judge_image(content.getvalue()))

    shown = left.getpixel((5, 5))
    assert isinstance(shown, tuple)
    assert shown[1] > 200 > 100 > shown[0], "its profile calls green red"
    assert "icc_profile" not in left.info


@pytest.mark.parametrize("profile", [b"", b"no profile", b"\0" * 128])
def test_a_profile_that_cannot_be_read_is_left_out(profile: bytes) -> None:
    content = io.BytesIO()
    Image.new("RGB", (100, 100), "red").save(content, "PNG", icc_profile=profile)

    assert opened(judge_image(content.getvalue())).getpixel((5, 5)) == (255, 0, 0)


def swapped_profile() -> bytes:
    """A profile of sRGB in which red and green have changed their names."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return (
        profile.replace(b"rXYZ", b"tXYZ", 1)
        .replace(b"gXYZ", b"rXYZ", 1)
        .replace(b"tXYZ", b"gXYZ", 1)
    )
