"""Checks values against JSON schemas and words what is wrong as Replicate does."""

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError

from services.simulator.problems import InvalidField

__all__ = ["Schema"]

_WORDINGS = {
    "minimum": ("number_gte", "Must be greater than or equal to {:g}"),
    "maximum": ("number_lte", "Must be less than or equal to {:g}"),
    "minLength": ("string_gte", "String length must be greater than or equal to {}"),
    "maxLength": ("string_lte", "String length must be less than or equal to {}"),
    "format": ("format", "Does not match format '{}'"),
}
_FORMATS = FormatChecker(formats=())


@_FORMATS.checks("uri", raises=ValueError)
def _is_address(value: object) -> bool:
    return not isinstance(value, str) or bool(urlsplit(value).scheme)


class Schema:
    """A JSON schema, ready to check values."""

    def __init__(self, document: dict[str, Any], prefix: str = "") -> None:
        """Takes the schema and the name of the place in the request body that it describes."""
        self._validator = Draft202012Validator(document, format_checker=_FORMATS)
        self._prefix = prefix

    def invalid_fields(self, value: object) -> list[InvalidField]:
        """Returns everything that is wrong with `value`; an empty list means that it is valid."""
        errors = sorted(
            self._validator.iter_errors(value),
            key=lambda error: ([str(part) for part in error.absolute_path], str(error.validator)),
        )
        fields = [field for error in errors for field in self._fields(error)]
        return list(dict.fromkeys(fields))

    def _fields(self, error: ValidationError) -> Iterator[InvalidField]:
        path = [str(part) for part in error.absolute_path]
        place = ".".join(([self._prefix] if self._prefix else []) + path)
        for kind, description in _descriptions(error, path[-1] if path else self._prefix):
            yield InvalidField(kind, place, description)


def _descriptions(error: ValidationError, name: str) -> Iterator[tuple[str, str]]:
    """Yields kind and wording, as the validator in Replicate's API words them (gojsonschema)."""
    rule: Any = error.validator_value
    instance: Any = error.instance
    schema: Any = error.schema
    match error.validator:
        case "required":
            for missing in rule:
                if missing not in instance:
                    yield "required", f"{missing} is required"
        case "additionalProperties":
            for extra in instance:
                if extra not in schema["properties"]:
                    kind = "additional_property_not_allowed"
                    yield kind, f"Additional property {extra} is not allowed"
        case "type":
            given = _type_name(error.instance)
            yield "invalid_type", f"Invalid type. Expected: {rule}, given: {given}"
        case "enum":
            yield "enum", f"{name} must be one of the following: {_quoted(rule)}"
        case str(keyword) if keyword in _WORDINGS:
            kind, wording = _WORDINGS[keyword]
            yield kind, wording.format(rule)
        case other:
            yield str(other), error.message


def _quoted(values: Sequence[object]) -> str:
    return ", ".join(f'"{value}"' if isinstance(value, str) else str(value) for value in values)


def _type_name(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"
