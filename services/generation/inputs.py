"""Maps what was asked for onto the keys of a model's input schema, which is data and changes.

Under one name the provider's models had two generations of schemas within a year: those of spring
2025 have `num_frames` and `max_area`, those after them have neither. So a schema is read, not
known: a value that the user chose and the schema lacks is refused, any other is left out.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from services.generation.state import Kind, Request

__all__ = ["InputSchema", "NoSuchParameter", "read_schema"]

SCHEMA_CHARACTERS_MAX = 256 * 1024
ASPECT_RATIO_DEFAULT = "16:9"
FRAMES = 81
FRAMES_PER_SECOND = 16

_KEYS: Mapping[str, tuple[str, ...]] = {
    "prompt": ("prompt",),
    "negative_prompt": ("negative_prompt",),
    "image": ("image",),
    "aspect_ratio": ("aspect_ratio",),
    # Image to video of spring 2025 took the size for the ratio.
    "size": ("max_area",),
    # Only the model that makes several sizes has this key; others are one size each.
    "resolution": ("resolution",),
    "frames": ("num_frames", "frame_num"),
    "frames_per_second": ("frames_per_second",),
    "seed": ("seed",),
}
"""What each thing that can be asked for is called, in all generations of schemas."""

_SIZES: Mapping[tuple[str, str], str] = {
    ("480p", "16:9"): "832x480",
    ("480p", "9:16"): "480x832",
    ("720p", "16:9"): "1280x720",
    ("720p", "9:16"): "720x1280",
}
"""Pictures by resolution and aspect ratio, as `max_area` names them."""

_REFERENCE = re.compile(r'"\$ref":"#/components/schemas/([^"/\\]+)"')


class NoSuchParameter(Exception):
    """The schema has no key for something that the user chose; the argument names its field."""


@dataclass(frozen=True, slots=True)
class InputSchema:
    """What a model takes."""

    schemas: Mapping[str, Any]
    """The schema under `Input`, and those that it refers to."""
    canonical: str
    """The same as JSON, always equal for equal schemas."""
    sha256: str
    """Digest of `canonical`, hexadecimal."""

    def parameters(self, resolution: str) -> tuple[str, ...]:
        """Returns the optional fields of a request that can be set."""
        has = {
            "negative_prompt": self._key("negative_prompt") is not None,
            "aspect_ratio": self._key("aspect_ratio") is not None
            or bool(self.aspect_ratios(resolution)),
            "seed": self._key("seed") is not None,
        }
        return tuple(name for name, is_there in has.items() if is_there)

    def aspect_ratios(self, resolution: str) -> tuple[str, ...]:
        """Returns the aspect ratios that can be chosen; empty if any, or none."""
        if self._key("aspect_ratio") is not None:
            return tuple(self._choices("aspect_ratio"))
        if self._key("size") is None:
            return ()
        return tuple(
            ratio
            for (size, ratio), picture in _SIZES.items()
            if size == resolution and self._allows("size", picture)
        )

    def build(self, request: Request, seed: int) -> dict[str, Any]:
        """Returns the model's input for `request`; `seed` is that of the attempt.

        Raises NoSuchParameter if it cannot be what the user chose.
        """
        ours = {
            "size": _SIZES.get((request.resolution, ASPECT_RATIO_DEFAULT)),
            "resolution": request.resolution,
            "frames": FRAMES,
            "frames_per_second": FRAMES_PER_SECOND,
            "seed": seed,
        }
        chosen = [
            ("prompt", "prompt", request.prompt),
            ("negative_prompt", "negative_prompt", request.negative_prompt),
            ("image_uri", "image", request.image_uri),
            ("seed", "seed", request.seed),
        ]
        if request.aspect_ratio:
            chosen.append(("aspect_ratio", *self._ratio(request)))
        built: dict[str, Any] = {}
        for name, value in ours.items():
            key = self._key(name)
            if key is not None and value is not None and self._allows(name, value):
                built[key] = value
        for field, name, choice in chosen:
            if choice in ("", None):
                continue
            key = self._key(name)
            if key is None:
                raise NoSuchParameter(field)
            built[key] = choice
        return built

    def _ratio(self, request: Request) -> tuple[str, str]:
        """Returns the name of what sets the aspect ratio, and its value for the chosen one."""
        ratio = request.aspect_ratio
        if self._key("aspect_ratio") is not None:
            return "aspect_ratio", ratio
        if ratio in self.aspect_ratios(request.resolution):
            return "size", _SIZES[request.resolution, ratio]
        raise NoSuchParameter("aspect_ratio")

    def _key(self, name: str) -> str | None:
        """Returns what the schema calls something; None if it has no key for it."""
        properties = self.schemas["Input"]["properties"]
        return next((key for key in _KEYS[name] if key in properties), None)

    def _property(self, name: str) -> Mapping[str, Any]:
        schema: Mapping[str, Any] = self.schemas["Input"]["properties"].get(self._key(name), {})
        return schema

    def _choices(self, name: str) -> list[Any]:
        """Returns the enum of a key, written in place or referred to."""
        schema = self._property(name)
        for part in (schema, *_parts(schema)):
            if isinstance(part.get("enum"), list):
                return list(part["enum"])
            if isinstance(part.get("$ref"), str):
                referred = self.schemas.get(part["$ref"].rpartition("/")[2], {})
                if isinstance(referred.get("enum"), list):
                    return list(referred["enum"])
        return []

    def _allows(self, name: str, value: object) -> bool:
        """Tells whether a value is within the enum or the range of its key."""
        choices = self._choices(name)
        if choices:
            return value in choices
        schema = self._property(name)
        least, greatest = schema.get("minimum"), schema.get("maximum")
        if not isinstance(value, int):
            return True
        return (not isinstance(least, int | float) or least <= value) and (
            not isinstance(greatest, int | float) or value <= greatest
        )


def read_schema(published: Mapping[str, Any], kind: Kind) -> InputSchema:
    """Returns the input schema among the `components.schemas` that a model publishes.

    Raises ValueError that says why it cannot be believed: no input that we can build would fit it.
    """
    model_input = published.get("Input")
    properties = model_input.get("properties") if isinstance(model_input, dict) else None
    if not isinstance(model_input, dict) or not isinstance(properties, dict):
        raise ValueError("it has no Input with properties")
    if not all(isinstance(schema, dict) for schema in properties.values()):
        raise ValueError("a property of Input is no object")
    needed = {"prompt", "image"} if kind is Kind.IMAGE_TO_VIDEO else {"prompt"}
    if missing := needed - properties.keys():
        raise ValueError(f"Input has no {' and no '.join(sorted(missing))}")
    known = {key for keys in _KEYS.values() for key in keys}
    if kind is Kind.TEXT_TO_VIDEO:
        known.discard("image")
    required = model_input.get("required", [])
    if not isinstance(required, list) or not all(isinstance(key, str) for key in required):
        raise ValueError("required of Input is no list of names")
    if unknown := set(required) - known:
        raise ValueError(f"Input requires {', '.join(sorted(unknown))[:200]}")
    schemas = _with_references(published, model_input)
    canonical = _canonical(schemas)
    return InputSchema(schemas, canonical, sha256(canonical.encode()).hexdigest())


def _with_references(published: Mapping[str, Any], model_input: object) -> dict[str, Any]:
    """Returns the input schema and all that it refers to, however deep."""
    schemas: dict[str, Any] = {"Input": model_input}
    waiting = _REFERENCE.findall(_canonical(model_input))
    while waiting:
        name = waiting.pop()
        referred = published.get(name)
        if name not in schemas and isinstance(referred, dict):
            schemas[name] = referred
            waiting += _REFERENCE.findall(_canonical(referred))
    return schemas


def _canonical(schema: object) -> str:
    try:
        text = json.dumps(schema, sort_keys=True, separators=(",", ":"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if len(text) > SCHEMA_CHARACTERS_MAX:
        raise ValueError(f"it has more than {SCHEMA_CHARACTERS_MAX} characters")
    return text


def _parts(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns the alternatives of which a schema is made."""
    parts: list[Mapping[str, Any]] = []
    for combination in ("allOf", "anyOf"):
        listed = schema.get(combination)
        if isinstance(listed, list):
            parts += [part for part in listed if isinstance(part, dict)]
    return parts
