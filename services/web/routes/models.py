"""Says what can be asked for."""

from hashlib import sha256

from fastapi import APIRouter, Request, Response

from services.web.callers import SignedIn
from services.web.forms import IMAGE_BYTES_MAX, IMAGE_TYPES
from services.web.limits import CallRate
from services.web.openapi import problems
from services.web.parts import WiredParts
from services.web.ranges import is_known
from services.web.resources import ImageRules, Model, Models

__all__ = ["list_models", "router"]

router = APIRouter(prefix="/api", tags=["models"])

_TAG = {"ETag": {"description": "Names this version.", "schema": {"type": "string"}}}


@router.get(
    "/models",
    dependencies=[CallRate],
    response_model=Models,
    responses={
        200: {"headers": _TAG},
        304: {"description": "The version that `If-None-Match` names.", "headers": _TAG},
        **problems(401, 429, 503, 504),
    },
)
async def list_models(request: Request, _caller: SignedIn, parts: WiredParts) -> Response:
    """Lists the models in the order in which to offer them, with prices and limits."""
    models = Models(
        models=[Model.of(model) for model in await parts.generations.list_models()],
        image=ImageRules(size_bytes_max=IMAGE_BYTES_MAX, content_types=list(IMAGE_TYPES)),
    )
    content = models.model_dump_json().encode()
    tag = sha256(content).hexdigest()[:32]
    # Kept, but asked about each time: an old price would be refused when it is paid.
    headers = {"ETag": f'"{tag}"', "Cache-Control": "private, no-cache"}
    if_none_match = request.headers.get("if-none-match")
    if if_none_match is not None and is_known(tag, if_none_match):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type="application/json", headers=headers)
