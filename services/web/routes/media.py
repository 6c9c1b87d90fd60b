"""Serves the files of a local folder to whoever has a signed address of one."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from services.runtime.errors import Unavailable
from services.runtime.media import MediaVerdict, check_media, seconds_left
from services.runtime.storage import (
    FileChanged,
    FileMissing,
    Storage,
    StorageFailed,
    StoredFile,
    content_type_of,
)
from services.runtime.telemetry import get_logger
from services.web.openapi import problems
from services.web.parts import WiredParts
from services.web.problems import Refused, problem
from services.web.ranges import NoSuchRange, Span, Unchanged, Whole, choose
from services.web.refusals import BrokenOff

__all__ = ["CHUNK_BYTES", "get_media", "router"]

CHUNK_BYTES = 256 * 1024
"""Of a file in memory at once, for each answer."""
OTHER_TYPE = "application/octet-stream"

logger = get_logger(__name__)

router = APIRouter(tags=["media"])

_BINARY: dict[str, Any] = {
    "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}},
}
_PARAMETERS = [
    {"name": name, "in": "query", "required": True, "schema": {"type": "string"}}
    for name in ("expires", "signature")
]


@router.get(
    "/media/{key:path}",
    response_class=Response,
    responses={
        200: {"description": "The file.", **_BINARY},
        206: {"description": "The part of it that `Range` names.", **_BINARY},
        304: {"description": "The file is the one that `If-None-Match` names."},
        **problems(403, 404, 416, 503),
    },
    openapi_extra={"parameters": _PARAMETERS},
)
async def get_media(key: str, request: Request, parts: WiredParts) -> Response:
    """Returns a stored file, or one range of its bytes.

    The address comes from a generation, whole: `expires` and `signature` prove it, and nobody has
    to be signed in. Get the generation again for one that works longer.
    """
    if parts.storage is None:
        raise _missing()
    query = request.scope["query_string"].decode("latin-1")
    now = datetime.now(UTC)
    match check_media(key, query, parts.media_keys, now):
        case MediaVerdict.BAD:
            raise Refused(problem(403, "MEDIA_ADDRESS_BAD", "The address is not one of ours."))
        case MediaVerdict.EXPIRED:
            detail = "The address has expired; get the generation again for a fresh one."
            raise Refused(problem(403, "MEDIA_ADDRESS_EXPIRED", detail))
        case MediaVerdict.GOOD:
            age_s = seconds_left(query, now)
    try:
        file = await parts.storage.stat(key)
    except FileMissing:
        raise _missing() from None
    except StorageFailed as error:
        raise _unavailable() from error
    headers = {
        "Accept-Ranges": "bytes",
        # As long as the address itself shows the file to whoever has it.
        "Cache-Control": f"private, max-age={age_s}",
        "Content-Security-Policy": "sandbox",
        # The page may be of another origin than media, and the address itself is the proof.
        "Cross-Origin-Resource-Policy": "cross-origin",
        "ETag": f'"{file.tag}"',
        "X-Content-Type-Options": "nosniff",
    }
    return await _answer(request, parts.storage, key, file, headers)


async def _answer(
    request: Request, storage: Storage, key: str, file: StoredFile, headers: dict[str, str]
) -> Response:
    chosen = choose(
        file.size_bytes,
        file.tag,
        wanted=request.headers.get("range"),
        if_none_match=request.headers.get("if-none-match"),
        if_range=request.headers.get("if-range"),
    )
    match chosen:
        case Unchanged():
            return Response(status_code=304, headers=headers)
        case NoSuchRange():
            raise Refused(
                problem(
                    416,
                    "RANGE_NOT_SATISFIABLE",
                    f"The file has {file.size_bytes} bytes.",
                    metadata={"size_bytes": file.size_bytes},
                ),
                {"Content-Range": f"bytes */{file.size_bytes}"},
            )
        case Whole():
            status, span = 200, Span(0, file.size_bytes)
        case Span(start=start, end=end) as span:
            status = 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size_bytes}"
    headers["Content-Length"] = str(span.end - span.start)
    content_type = content_type_of(key) or OTHER_TYPE
    if getattr(request.state, "is_head", False):
        return Response(status_code=status, headers=headers, media_type=content_type)
    chunks = _read(storage, key, file.tag, span)
    return StreamingResponse(chunks, status, headers, content_type)


async def _read(storage: Storage, key: str, tag: str, span: Span) -> AsyncIterator[bytes]:
    """Yields a span of a file; breaks off when the file is gone, or another, meanwhile."""
    for start in range(span.start, span.end, CHUNK_BYTES):
        try:
            chunk = await storage.get_range(key, start, min(start + CHUNK_BYTES, span.end), tag)
        except (FileMissing, FileChanged):
            logger.info("a file went away while it was sent", key=key)
            raise BrokenOff from None
        yield chunk


def _missing() -> Refused:
    return Refused(problem(404, "MEDIA_NOT_FOUND", "There is no such file."))


def _unavailable() -> Unavailable:
    return Unavailable("STORAGE_UNAVAILABLE", "The file cannot be read now; repeat the request.")
