"""The models that can be asked for, what they cost, and what keeps a request from being made.

The catalog is data (`catalog.toml`), and so is the input schema of each model (`schemas/*.json`, in
the form of `components.schemas` that Replicate publishes with every model). A value that the caller
chose and the schema lacks is refused before anything is reserved.
"""

import json
import re
import tomllib
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from services.generation.inputs import InputSchema, read_schema
from services.generation.state import Kind, Request

__all__ = ["Catalog", "Model", "Offer", "Problem", "Reason", "Variant", "load_catalog"]

PROMPT_CHARACTERS_MIN = 10
PROMPT_CHARACTERS_MAX = 500
IMAGE_URI_CHARACTERS_MAX = 2048
SEED_MAX = 2**31 - 1
OPTIONAL_PARAMETERS = ("negative_prompt", "aspect_ratio", "seed")
_UPLOAD = re.compile(r"upload:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Reason(StrEnum):
    """Why a request cannot be made; the names are values of the contract's ErrorReason."""

    INVALID_FIELD = "INVALID_FIELD"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    RESOLUTION_NOT_SUPPORTED = "RESOLUTION_NOT_SUPPORTED"
    PARAMETER_NOT_SUPPORTED = "PARAMETER_NOT_SUPPORTED"
    IMAGE_NOT_ACCEPTED = "IMAGE_NOT_ACCEPTED"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one field of a request."""

    field: str
    rule: str
    """What the field must be, as the end of a sentence that begins with its name."""
    reason: Reason = Reason.INVALID_FIELD
    metadata: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Variant:
    """A model at one resolution."""

    resolution: str
    price_credits: int
    provider_model: str
    """`owner/name` at Replicate."""
    run_s: float
    """How long the provider takes for a video, in seconds, until enough were measured."""
    schema: InputSchema
    """What the model takes."""
    provider_usd: float | None = None
    """What a video costs us at the provider, in US dollars; None if nobody says."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """The optional fields of a request that this model has."""
        return self.schema.parameters(self.resolution)


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can be asked for."""

    model: str
    display_name: str
    kind: Kind
    variants: tuple[Variant, ...]
    """One a resolution, cheapest first."""

    def variant(self, resolution: str) -> Variant | None:
        """Returns the model at `resolution`; None if it makes no such size."""
        return next((v for v in self.variants if v.resolution == resolution), None)


@dataclass(frozen=True, slots=True)
class Catalog:
    """All models, in the order in which they should be offered."""

    models: tuple[Model, ...]

    def find(self, model: str) -> Model | None:
        """Returns the model of that name; None if there is none."""
        return next((m for m in self.models if m.model == model), None)

    def variant_of(self, request: Request) -> Variant:
        """Returns what a request that was found possible asks for.

        Raises LookupError if the catalog has lost it since.
        """
        model = self.find(request.model)
        variant = model.variant(request.resolution) if model else None
        if variant is None:
            raise LookupError(f"the catalog has no {request.model} at {request.resolution}")
        return variant

    def with_schema(self, provider_model: str, schema: InputSchema) -> "Catalog":
        """Returns the catalog in which the models made by `provider_model` take `schema`."""
        return Catalog(
            tuple(
                replace(
                    model,
                    variants=tuple(
                        replace(v, schema=schema) if v.provider_model == provider_model else v
                        for v in model.variants
                    ),
                )
                for model in self.models
            )
        )

    def problems(self, request: Request) -> Iterator[Problem]:
        """Yields everything that keeps `request` from being made."""
        yield from _text_problems(request)
        model = self.find(request.model)
        if model is None:
            yield Problem(
                "model",
                f"must be one of {', '.join(m.model for m in self.models)}",
                Reason.MODEL_NOT_FOUND,
                (("model", request.model),),
            )
            return
        if request.kind is not model.kind:
            yield Problem("kind", f"must be {model.kind} for {model.model}")
        yield from _image_problems(request, model.kind)
        variant = model.variant(request.resolution)
        if variant is None:
            yield Problem(
                "resolution",
                f"must be {' or '.join(v.resolution for v in model.variants)} for {model.model}",
                Reason.RESOLUTION_NOT_SUPPORTED,
                (("model", model.model), ("resolution", request.resolution)),
            )
            return
        yield from _parameter_problems(request, model, variant)


@dataclass(slots=True)
class Offer:
    """What is offered now: the models stay, what they take changes while the service runs."""

    catalog: Catalog
    """Replaced as a whole, so that whoever has it can go on with it."""


def load_catalog(speed: float = 1.0) -> Catalog:
    """Returns the catalog that the package carries, of a provider that is `speed` times as fast.

    Raises ValueError if it is malformed.
    """
    here = files("services.generation")
    document = tomllib.loads(here.joinpath("catalog.toml").read_text("utf-8"))
    return Catalog(
        models=tuple(
            Model(
                model=entry["model"],
                display_name=entry["display_name"],
                kind=Kind(entry["kind"]),
                variants=tuple(
                    _variant(
                        size,
                        json.loads(here.joinpath("schemas", size["schema"]).read_bytes()),
                        Kind(entry["kind"]),
                        speed,
                    )
                    for size in entry["resolutions"]
                ),
            )
            for entry in document["models"]
        )
    )


def _variant(
    size: Mapping[str, Any], bundled: Mapping[str, Any], kind: Kind, speed: float
) -> Variant:
    if size["price_credits"] < 1:
        raise ValueError(f"price_credits of {size['provider_model']} must be at least 1")
    if size.get("provider_usd", 0.0) < 0:
        raise ValueError(f"provider_usd of {size['provider_model']} must be at least 0")
    return Variant(
        resolution=size["resolution"],
        price_credits=size["price_credits"],
        provider_model=size["provider_model"],
        run_s=size["run_s"] / speed,
        schema=read_schema(bundled["schemas"], kind),
        provider_usd=size.get("provider_usd"),
    )


def _text_problems(request: Request) -> Iterator[Problem]:
    for name, least, rule in (
        ("prompt", PROMPT_CHARACTERS_MIN, f"{PROMPT_CHARACTERS_MIN} to {PROMPT_CHARACTERS_MAX}"),
        ("negative_prompt", 0, f"at most {PROMPT_CHARACTERS_MAX}"),
    ):
        content: str = getattr(request, name)
        if not least <= len(content) <= PROMPT_CHARACTERS_MAX:
            yield Problem(name, f"must have {rule} characters, has {len(content)}")
        if len(content) > PROMPT_CHARACTERS_MAX:
            continue  # Nobody shall wait while every character of a book is looked at.
        if any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in content):
            yield Problem(name, "must not contain control characters")
        if least and not any(c.isprintable() and not c.isspace() for c in content):
            yield Problem(name, "must have characters that can be seen")
    if request.seed is not None and not 0 <= request.seed <= SEED_MAX:
        yield Problem("seed", f"must be between 0 and {SEED_MAX}")


def _image_problems(request: Request, kind: Kind) -> Iterator[Problem]:
    reason = Reason.IMAGE_NOT_ACCEPTED
    address = request.image_uri
    if kind is Kind.TEXT_TO_VIDEO:
        if address:
            yield Problem("image_uri", "must be empty for text to video", reason)
    elif not address:
        yield Problem("image_uri", "must be set for image to video", reason)
    elif address.startswith("upload:"):
        if _UPLOAD.fullmatch(address) is None:
            yield Problem("image_uri", "must be what UploadImage answered", reason)
    elif len(address) > IMAGE_URI_CHARACTERS_MAX:
        yield Problem(
            "image_uri", f"must have at most {IMAGE_URI_CHARACTERS_MAX} characters", reason
        )
    elif not _is_https(address):
        yield Problem("image_uri", "must be what UploadImage answered, or an https address", reason)


def _is_https(address: str) -> bool:
    """Tells whether `address` names a host by https; it is never fetched here."""
    plain = address.isascii() and address.isprintable() and " " not in address
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:  # A port that is no number, for one.
        return False
    return parts.scheme == "https" and bool(host) and plain


def _parameter_problems(request: Request, model: Model, variant: Variant) -> Iterator[Problem]:
    for name in OPTIONAL_PARAMETERS:
        chosen = getattr(request, name) not in ("", None)
        if chosen and name not in variant.parameters:
            yield Problem(
                name,
                f"must not be set: {model.model} has no such parameter",
                Reason.PARAMETER_NOT_SUPPORTED,
                (("model", model.model), ("parameter", name)),
            )
    ratios = variant.schema.aspect_ratios(variant.resolution)
    if request.aspect_ratio and ratios and request.aspect_ratio not in ratios:
        yield Problem("aspect_ratio", f"must be {' or '.join(ratios)}")
