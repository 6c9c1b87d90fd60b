"""Knows the models that can be run: their input schemas, durations and picture sizes."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from services.simulator.problems import InvalidField
from services.simulator.switches import SchemaGeneration
from services.simulator.validation import Schema

__all__ = ["Model", "Price", "Registry", "Version", "load_registry"]

MODELS = Path(__file__).parent / "models"


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """One version of a model, with the schema of its input."""

    id: str
    """64 hexadecimal digits, made from the model's name and its schemas."""
    generation: str
    """Which generation of schemas it belongs to."""
    created_at: str
    cog_version: str
    schemas: dict[str, Any]
    """`Input`, `Output` and the enumerations that they refer to."""
    _input_schema: Schema

    @property
    def takes_image(self) -> bool:
        """Returns whether the video starts from an image."""
        return "image" in self.schemas["Input"]["properties"]

    def value(self, model_input: dict[str, Any], key: str, default: Any) -> Any:
        """Returns the value of an input that the model knows.

        That is the given one, else the schema's default, else, or for an unknown key, `default`.
        """
        known = self.schemas["Input"]["properties"].get(key)
        return default if known is None else model_input.get(key, known.get("default", default))

    def invalid_fields(self, model_input: object) -> list[InvalidField]:
        """Returns what is wrong with an input.

        Keys that the schema does not have are no fault: Replicate closes only the outer body.
        """
        return self._input_schema.invalid_fields(model_input)


@dataclass(frozen=True, slots=True)
class Price:
    """What a successful prediction costs."""

    unit: Literal["output_second", "video"]
    micro_usd: int
    """Millionths of a dollar for each unit."""


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A model, as its data file describes it."""

    owner: str
    name: str
    about: dict[str, str]
    """Description and addresses, for people."""
    run_s: float
    """Seconds that a run takes on average."""
    sizes: dict[str, tuple[int, int]]
    """Width and height for each aspect ratio."""
    frames: int
    """Frames of a video whose request does not say."""
    frames_per_second: int
    """Frame rate of a video whose request does not say."""
    price: Price
    versions: tuple[Version, ...]
    """Newest first."""

    @property
    def full_name(self) -> str:
        """Returns `owner/name`."""
        return f"{self.owner}/{self.name}"

    def frame_count(self, version: Version, given: dict[str, Any]) -> int:
        """Returns the frames of the video that an input asks for."""
        fallback = version.value(given, "frame_num", self.frames)
        return int(version.value(given, "num_frames", fallback))

    def frame_rate(self, version: Version, given: dict[str, Any]) -> int:
        """Returns the frames a second of the video that an input asks for."""
        return int(version.value(given, "frames_per_second", self.frames_per_second))

    def output_s(self, version: Version, given: dict[str, Any]) -> float:
        """Returns the seconds of the video that an input asks for."""
        return self.frame_count(version, given) / self.frame_rate(version, given)

    def latest(self, generation: SchemaGeneration = "current") -> Version:
        """Returns the version that a create by name runs.

        Some models appeared late: before that they are as they are now.
        """
        mine = (one for one in self.versions if one.generation == generation)
        return next(mine, self.versions[0])


class Registry:
    """All models."""

    def __init__(self, models: list[Model]) -> None:
        self._models = {model.full_name: model for model in models}
        self._versions = {
            version.id: (model, version) for model in models for version in model.versions
        }

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def find(self, full_name: str) -> Model | None:
        """Returns the model named `owner/name`."""
        return self._models.get(full_name)

    def find_version(
        self, reference: str, generation: SchemaGeneration = "current"
    ) -> tuple[Model, Version] | None:
        """Returns what `owner/name`, `owner/name:<version>` or `<version>` refers to."""
        full_name, colon, version_id = reference.partition(":")
        if not colon:
            model = self._models.get(reference)
            return (model, model.latest(generation)) if model else self._versions.get(reference)
        found = self._versions.get(version_id)
        return found if found and found[0].full_name == full_name else None


def load_registry(folder: Path = MODELS) -> Registry:
    """Returns the registry of the data files in `folder`."""
    return Registry(
        [_model(json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]
    )


def _model(data: dict[str, Any]) -> Model:
    full_name = f"{data['owner']}/{data['name']}"
    return Model(
        owner=data["owner"],
        name=data["name"],
        about={
            key: data[key]
            for key in ("description", "github_url", "license_url", "paper_url", "created_at")
        },
        run_s=float(data["run_s"]),
        sizes={ratio: (size[0], size[1]) for ratio, size in data["sizes"].items()},
        frames=data["frames"],
        frames_per_second=data["frames_per_second"],
        price=Price(data["price"]["unit"], data["price"]["micro_usd"]),
        versions=tuple(_version(full_name, version) for version in data["versions"]),
    )


def _version(full_name: str, data: dict[str, Any]) -> Version:
    schemas = data["schemas"]
    canonical = json.dumps([full_name, schemas], sort_keys=True, separators=(",", ":"))
    document = {"$ref": "#/components/schemas/Input", "components": {"schemas": schemas}}
    return Version(
        id=hashlib.sha256(canonical.encode()).hexdigest(),
        generation=data["generation"],
        created_at=data["created_at"],
        cog_version=data["cog_version"],
        schemas=schemas,
        _input_schema=Schema(document, prefix="input"),
    )
