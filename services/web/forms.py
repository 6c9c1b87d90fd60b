"""Reads forms that bring an image: piece by piece, and no further than it can be accepted."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from services.web.image_places import ImagePlace
from services.web.problems import FieldProblem, Refused, invalid, problem

__all__ = ["FORM", "IMAGE", "IMAGE_BYTES_MAX", "IMAGE_TYPES", "Form", "media_type_of", "read_form"]

FORM = "multipart/form-data"
IMAGE = "image"
"""The name of the part that holds the file."""
IMAGE_BYTES_MAX = 10 * 1024 * 1024
FIELD_BYTES_MAX = 8 * 1024
"""Of a field in UTF-8; those that are known are bounded further where they are used. There are as
many parts as known fields, and the image: each comes once."""
IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp")
MAGIC_BYTES = 12
"""How much of a file tells what it is."""


@dataclass(frozen=True, slots=True)
class Form:
    """What a form holds."""

    image: bytes
    """The file."""
    fields: Mapping[str, str]
    """Everything else, by name."""


def media_type_of(request: Request) -> str:
    """Returns what the body of a request says it is, in lower case and without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_form(request: Request, place: ImagePlace, known: Collection[str] = ()) -> Form:
    """Returns a form with an image, and with no other fields than those `known`.

    Raises Refused as soon as it is certain that it will not be accepted; the rest of the body is
    then not read. What a part says about its type counts for nothing.
    """
    if media_type_of(request) != FORM:
        raise Refused(problem(415, "FORM_REQUIRED", f"The body must be {FORM}."))
    reading = _Reading(frozenset(known))
    try:
        parser = MultipartParser(_boundary(request), reading.callbacks())  # type: ignore[arg-type]
        async for chunk in request.stream():
            place.take(len(chunk))
            parser.write(chunk)
    except FormParserError:
        raise _malformed() from None
    return reading.result()


def _boundary(request: Request) -> bytes:
    _, parameters = parse_options_header(request.headers["content-type"])
    boundary = parameters.get(b"boundary", b"")
    if not boundary:
        raise _malformed()
    return boundary


@dataclass(slots=True)
class _Reading:
    """A form of which some was read; its methods are called back by the parser."""

    known: frozenset[str]
    parts: dict[str, bytearray] = field(default_factory=dict)
    name: str = ""
    header: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)
    disposition: bytes = b""
    has_ended: bool = False

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": lambda data, start, end: self.header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self.value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._name_part,
            "on_part_data": self._take,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def result(self) -> Form:
        if not self.has_ended:
            raise _malformed()
        if IMAGE not in self.parts:
            raise Refused(invalid(FieldProblem(f"/{IMAGE}", "must be given")))
        image = bytes(self.parts.pop(IMAGE))
        fields: dict[str, str] = {}
        for name, content in self.parts.items():
            try:
                fields[name] = content.decode()
            except UnicodeDecodeError:
                raise Refused(invalid(FieldProblem(f"/{name}", "must be UTF-8"))) from None
        return Form(image, fields)

    def _begin_part(self) -> None:
        self.disposition = b""

    def _end_header(self) -> None:
        if self.header.lower() == b"content-disposition":
            self.disposition = bytes(self.value)
        self.header.clear()
        self.value.clear()

    def _name_part(self) -> None:
        _, parameters = parse_options_header(self.disposition)
        try:
            self.name = parameters[b"name"].decode()
        except (KeyError, UnicodeDecodeError):
            raise _malformed() from None
        if self.name != IMAGE and self.name not in self.known:
            raise Refused(invalid(FieldProblem(_pointer(self.name), "is no field of this form")))
        if self.name in self.parts:
            raise Refused(invalid(FieldProblem(_pointer(self.name), "must be given once")))
        self.parts[self.name] = bytearray()

    def _take(self, data: bytes, start: int, end: int) -> None:
        content = self.parts[self.name]
        content += data[start:end]
        if self.name != IMAGE:
            if len(content) > FIELD_BYTES_MAX:
                rule = f"must have at most {FIELD_BYTES_MAX} bytes"
                raise Refused(invalid(FieldProblem(_pointer(self.name), rule)))
        elif len(content) > IMAGE_BYTES_MAX:
            raise _too_large()
        elif len(content) >= MAGIC_BYTES > len(content) - (end - start):
            _check_type(content)

    def _end_part(self) -> None:
        content = self.parts[self.name]
        if self.name == IMAGE and len(content) < MAGIC_BYTES:
            if not content:
                raise Refused(invalid(FieldProblem(f"/{IMAGE}", "must not be empty")))
            _check_type(content)

    def _end(self) -> None:
        self.has_ended = True


def _check_type(content: bytearray) -> None:
    is_webp = content.startswith(b"RIFF") and content[8:12] == b"WEBP"
    if not is_webp and not content.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")):
        rule = "must be a JPEG, PNG or WebP image, whatever its name says"
        raise Refused(
            problem(
                415,
                "NOT_AN_IMAGE",
                f"The file {rule}.",
                errors=(FieldProblem(f"/{IMAGE}", rule),),
            )
        )


def _pointer(name: str) -> str:
    return "/" + name[:FIELD_BYTES_MAX].replace("~", "~0").replace("/", "~1")


def _too_large() -> Refused:
    rule = f"must have at most {IMAGE_BYTES_MAX} bytes"
    return Refused(
        problem(
            413,
            "IMAGE_TOO_LARGE",
            f"The image {rule}.",
            errors=(FieldProblem(f"/{IMAGE}", rule),),
            metadata={"size_bytes_max": IMAGE_BYTES_MAX},
        )
    )


def _malformed() -> Refused:
    rule = f"must be a whole {FORM}, each part of it with a name"
    return Refused(invalid(FieldProblem("", rule), code="MALFORMED_FORM"))
