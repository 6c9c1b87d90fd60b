"""Starts generations, at the addresses of the product's first version."""

from typing import Any

from fastapi import APIRouter, Request, Response

from services.client import history
from services.client.generations import GenerationClient, Kind
from services.runtime.errors import InvalidRequest
from services.web.callers import SignedIn
from services.web.field_names import fields_named
from services.web.forms import FORM, IMAGE, IMAGE_TYPES, Form, media_type_of, read_form
from services.web.idempotency import PARAMETER, Key, WantedKey, find_earlier, is_repetition
from services.web.json_bodies import JSON, JsonOnly, checked, read_json, unsupported
from services.web.limits import CreateRate
from services.web.openapi import problems
from services.web.parts import WiredParts
from services.web.requests import CreateBody, ImageToVideoBody
from services.web.resources import Generation
from services.web.routes.generations import ACCEPTED_HEADERS, accepted
from services.web.routes.uploads import IMAGE_SCHEMA

__all__ = ["create_image_to_video", "create_text_to_video", "router"]

DIGITS_MAX = 20
"""Of a number in a form; any that has more is none that is accepted."""

router = APIRouter(prefix="/api/generation", tags=["generations"])

_REFUSALS = problems(400, 401, 402, 403, 408, 409, 413, 415, 422, 429, 503, 504)


def _form_schema() -> dict[str, Any]:
    schema: dict[str, Any] = CreateBody.model_json_schema()
    schema["properties"] = {IMAGE: IMAGE_SCHEMA, **schema["properties"]}
    schema["required"] = [IMAGE, *schema["required"]]
    return {**schema, "title": "ImageToVideoForm"}


@router.post(
    "/text-to-video",
    status_code=202,
    dependencies=[JsonOnly, CreateRate],
    responses={202: {"headers": ACCEPTED_HEADERS}, **_REFUSALS},
    openapi_extra={"parameters": [PARAMETER]},
)
async def create_text_to_video(
    body: CreateBody, caller: SignedIn, parts: WiredParts, key: WantedKey, response: Response
) -> Generation:
    """Starts a video from a prompt, and reserves its price."""
    is_again = await is_repetition(parts.generations, caller.user_id, key)
    generation = await _create(parts.generations, caller.user_id, key, body)
    accepted(response, generation.generation_id, is_repetition=is_again)
    return Generation.of(generation)


@router.post(
    "/image-to-video",
    status_code=202,
    dependencies=[CreateRate],
    responses={202: {"headers": ACCEPTED_HEADERS}, **_REFUSALS},
    openapi_extra={
        "parameters": [PARAMETER],
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": ImageToVideoBody.model_json_schema()},
                FORM: {
                    "schema": _form_schema(),
                    "encoding": {IMAGE: {"contentType": ", ".join(IMAGE_TYPES)}},
                },
            },
        },
    },
)
async def create_image_to_video(
    request: Request, caller: SignedIn, parts: WiredParts, key: WantedKey, response: Response
) -> Generation:
    """Starts a video from a prompt and an image, and reserves its price.

    The image comes in the form, or was uploaded before and is named in the JSON. Of a repetition
    with the same key the image must be the same too, unless the first one was removed meanwhile
    with its generation: then nothing is left to compare it with.
    """
    client, user_id = parts.generations, caller.user_id
    match media_type_of(request):
        case "application/json":
            body = await read_json(request, ImageToVideoBody)
            is_again = await is_repetition(client, user_id, key)
            image_uri = body.image_uri
            wish: CreateBody = body
        case "multipart/form-data":
            with parts.image_places.hold(user_id) as place:
                form = await read_form(request, place, CreateBody.model_fields)
                wish = _wish_of(form)
                earlier = await find_earlier(client, user_id, key)
                is_again = earlier is not None
                async with parts.image_places.turn():
                    image_uri = await _image_uri(client, user_id, form.image, earlier)
        case _:
            raise unsupported(JSON, FORM)
    generation = await _create(client, user_id, key, wish, image_uri)
    accepted(response, generation.generation_id, is_repetition=is_again)
    return Generation.of(generation)


async def _create(
    client: GenerationClient, user_id: str, key: Key, body: CreateBody, image_uri: str = ""
) -> history.Generation:
    return await client.create(
        user_id,
        Kind.IMAGE_TO_VIDEO if image_uri else Kind.TEXT_TO_VIDEO,
        body.model,
        body.resolution,
        body.prompt,
        negative_prompt=body.negative_prompt,
        image_uri=image_uri,
        aspect_ratio=body.aspect_ratio,
        seed=body.seed,
        generation_id=key.generation_id,
        quote_token=body.quote_token,
    )


def _wish_of(form: Form) -> CreateBody:
    """Returns the fields of a form, in which a number is written as text."""
    fields: dict[str, object] = dict(form.fields)
    seed = form.fields.get("seed", "")
    if seed.isascii() and seed.isdigit() and len(seed) <= DIGITS_MAX:
        fields["seed"] = int(seed)
    return checked(CreateBody, fields)


async def _image_uri(
    client: GenerationClient, user_id: str, image: bytes, earlier: history.Generation | None
) -> str:
    """Returns the address under which the image of a form is stored.

    The same image of a user has the same one for as long as it is stored, so that a repetition is
    known to be the same. Once it was removed, it would get another and be refused for that: a
    repetition then goes by what it asked for the first time, and leaves no second image behind.
    """
    if earlier is not None and await _is_removed(client, user_id, earlier):
        return earlier.image_uri
    with fields_named(content=IMAGE):
        return (await client.upload_image(user_id, image)).image_uri


async def _is_removed(
    client: GenerationClient, user_id: str, generation: history.Generation
) -> bool:
    """Tells whether the image of a generation is gone; one that has not ended keeps its image."""
    if not generation.is_final or not generation.image_uri.startswith("upload:"):
        return False
    try:
        await client.quote(
            user_id,
            generation.kind,
            generation.model,
            generation.resolution,
            generation.prompt,
            image_uri=generation.image_uri,
        )
    except InvalidRequest as error:
        # The catalog may have changed since, and refuse more than the image.
        return any(violation.field == "image_uri" for violation in error.violations)
    return False
