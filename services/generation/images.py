"""Judges images that people bring, by their content, and makes them anew without metadata.

What is stored is never what was uploaded: the pixels are decoded and encoded again, so that neither
the place where a photo was taken, nor whatever else a file can carry behind an image, gets any
further. The same content always becomes the same bytes.
"""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from PIL import ExifTags, Image, ImageCms

__all__ = ["IMAGE_BYTES_MAX", "ImageFormat", "NotAccepted", "StillImage", "judge_image"]

IMAGE_BYTES_MAX = 10 * 1024 * 1024
STORED_BYTES_MAX = 3 * IMAGE_BYTES_MAX
"""Made anew, an image may be larger: it was packed better, or had a palette."""
PIXELS_MAX = 40_000_000
PIXEL_BYTES_MAX = 160_000_000
"""Bytes that have to be unpacked: of the most pixels, with 8 bits of 4 colors each."""
SIDE_PIXELS_MIN = 64
SIDE_PIXELS_MAX = 16_383
"""The longest that WebP has room for."""
SCANS_MAX = 100
"""Of a progressive JPEG, which has about ten. Each costs a pass over the whole image."""
QUALITY = 95

_PIXELS_RULE = f"at most {PIXELS_MAX // 10**6} million pixels, and {SIDE_PIXELS_MAX} a side"
# Pillow's own limit is looser, and warns on standard error; ours is checked before any decoding.
Image.MAX_IMAGE_PIXELS = None

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each orientation of EXIF."""


class ImageFormat(StrEnum):
    """What is accepted; the values are Pillow's names."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WEBP"

    @property
    def content_type(self) -> str:
        """Its media type."""
        return f"image/{self.value.lower()}"

    @property
    def extension(self) -> str:
        """What names of such files end in."""
        return {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}[self.value]


@dataclass(frozen=True, slots=True)
class StillImage:
    """An image without metadata, upright."""

    content: bytes
    format: ImageFormat
    width_pixels: int
    height_pixels: int


class NotAccepted(Exception):
    """An image that is not taken; the text is the rule that it breaks, as "must …"."""


def judge_image(content: bytes) -> StillImage:
    """Returns the image in `content`, made anew; raises NotAccepted.

    Takes some seconds of one core and 640 MB for the largest WebP, half of that for other formats:
    let few run at once.
    """
    if len(content) > IMAGE_BYTES_MAX:
        raise NotAccepted(f"must have at most 10 MiB, has {len(content) / 2**20:.1f}")
    image_format = _format_of(content)
    if image_format is ImageFormat.JPEG and content.count(b"\xff\xda") > SCANS_MAX:
        raise NotAccepted("must be a JPEG with fewer scans: save it anew and upload that")
    with _readable():
        if image_format is ImageFormat.PNG:
            # This reads all check sums, after which nothing more can be read of the image.
            _open(content, image_format).verify()
        upright = _upright(_open(content, image_format))
    encoded = io.BytesIO()
    match image_format:
        case ImageFormat.JPEG:
            upright.save(encoded, "JPEG", quality=QUALITY, subsampling="4:4:4")
        case ImageFormat.PNG:
            upright.save(encoded, "PNG")
        case ImageFormat.WEBP:
            # More effort takes ten times as long, and lossless coding twenty times.
            upright.save(encoded, "WEBP", quality=QUALITY, method=2)
    if encoded.tell() > STORED_BYTES_MAX:
        raise NotAccepted(
            f"must take at most {STORED_BYTES_MAX // 2**20} MiB once it is unpacked and packed "
            "anew: make it smaller, or save it as a JPEG of less quality"
        )
    return StillImage(encoded.getvalue(), image_format, upright.width, upright.height)


def _format_of(content: bytes) -> ImageFormat:
    if content.startswith(b"\xff\xd8\xff"):
        return ImageFormat.JPEG
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return ImageFormat.PNG
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return ImageFormat.WEBP
    raise NotAccepted("must be a JPEG, PNG or WebP image, whatever its name says")


def _open(content: bytes, image_format: ImageFormat) -> Image.Image:
    """Returns an image whose pixels are not decoded yet, once it is known that they may be."""
    # No other parser than that of the format sees the content.
    image = Image.open(io.BytesIO(content), formats=[image_format.value])
    width, height = image.size
    if width * height > PIXELS_MAX or max(width, height) > SIDE_PIXELS_MAX:
        raise NotAccepted(f"must have {_PIXELS_RULE}, has {width} by {height}")
    size_bytes = width * height * _bits_a_pixel(content, image_format) // 8
    if size_bytes > PIXEL_BYTES_MAX:
        raise NotAccepted(
            f"must have at most {PIXEL_BYTES_MAX // 10**6} MB of pixels, has "
            f"{size_bytes // 10**6}: save it with 8 bits a color, or make it smaller"
        )
    if min(width, height) < SIDE_PIXELS_MIN:
        raise NotAccepted(
            f"must have at least {SIDE_PIXELS_MIN} by {SIDE_PIXELS_MIN} pixels, "
            f"has {width} by {height}"
        )
    # A phone's JPEG may hold a second picture besides the photo; it does not move, and is left out.
    if image_format is not ImageFormat.JPEG and getattr(image, "is_animated", False):
        raise NotAccepted("must be a still image, not an animation")
    return image


def _bits_a_pixel(content: bytes, image_format: ImageFormat) -> int:
    """Returns how much of a file, once unpacked, is a pixel."""
    if image_format is not ImageFormat.PNG:
        return 32
    # Bit depth and color type (https://www.w3.org/TR/png-3/#11IHDR).
    bits, color_type = content[24], content[25]
    return bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(color_type, 4)


def _upright(image: Image.Image) -> Image.Image:
    """Returns an image with nothing but its pixels, turned as its camera was held."""
    turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    image.load()
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        # Sixteen bits of gray, which would be cut off at eight instead of being divided.
        image = image.convert("I").point(lambda gray: gray / 256).convert("L")
    # One name for what is decoded, so that memory holds no more than two of it at a time.
    if image.has_transparency_data:
        image = image.convert("RGBA")
        # What nobody sees is nobody's business, and takes room.
        image.paste((0, 0, 0, 0), mask=image.getchannel("A").point(lambda alpha: not alpha and 255))
    elif image.mode not in ("L", "CMYK"):
        image = image.convert("RGB")
    image = _in_srgb(image, profile)
    if image.mode == "CMYK":
        image = image.convert("RGB")
    if turn is not None:
        image = image.transpose(turn)
    # Encoders write what they find here: comments, profiles, EXIF.
    image.info.clear()
    return image


def _in_srgb(image: Image.Image, profile: object) -> Image.Image:
    """Returns an image in the colors that are meant where no profile says so."""
    if not isinstance(profile, bytes) or image.mode == "L":
        return image
    try:
        meant = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        return ImageCms.profileToProfile(image, meant, srgb, outputMode=mode) or image
    except (ImageCms.PyCMSError, OSError):
        return image  # Who cannot read the profile shows it like this too.


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """Refuses what cannot be decoded."""
    try:
        yield
    except (NotAccepted, MemoryError):
        raise
    except Exception:  # noqa: BLE001  Broken files drive Pillow's parsers to errors of every kind.
        raise NotAccepted("must be a whole image that is not damaged") from None
