"""Takes images to start videos from."""

from typing import Any

from fastapi import APIRouter, Request

from services.web.callers import SignedIn
from services.web.field_names import fields_named
from services.web.forms import FORM, IMAGE, IMAGE_TYPES, read_form
from services.web.limits import UploadRate
from services.web.openapi import problems
from services.web.parts import WiredParts
from services.web.resources import Image

__all__ = ["IMAGE_SCHEMA", "router", "upload_image"]

IMAGE_SCHEMA: dict[str, Any] = {
    "type": "string",
    "format": "binary",
    "description": "A JPEG, PNG or WebP file of at most 10 MiB, no animation, of 64 by 64 pixels "
    "to 40 million pixels. It is judged by its content.",
}

router = APIRouter(prefix="/api", tags=["uploads"])


@router.post(
    "/uploads",
    status_code=201,
    dependencies=[UploadRate],
    responses=problems(400, 401, 403, 408, 413, 415, 422, 429, 503, 504),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                FORM: {
                    "schema": {
                        "type": "object",
                        "required": [IMAGE],
                        "properties": {IMAGE: IMAGE_SCHEMA},
                        "additionalProperties": False,
                    },
                    "encoding": {IMAGE: {"contentType": ", ".join(IMAGE_TYPES)}},
                }
            },
        }
    },
)
async def upload_image(request: Request, caller: SignedIn, parts: WiredParts) -> Image:
    """Stores an image, upright and without metadata, for 24 hours or as long as it is used.

    The same image again is the same `image_uri`.
    """
    with parts.image_places.hold(caller.user_id) as place:
        form = await read_form(request, place)
        async with parts.image_places.turn():
            with fields_named(content=IMAGE):
                return Image.of(await parts.generations.upload_image(caller.user_id, form.image))
