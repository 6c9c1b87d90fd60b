"""Turns what the wire carries into plain values."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

__all__ = ["EnumNames", "moment", "moment_if_set", "named", "named_on_wire", "timestamp"]

NamedType = TypeVar("NamedType", bound=StrEnum)


class EnumNames(Protocol):
    """The part of a protobuf enum that knows the names of its values."""

    def Name(self, number: Any) -> str:  # noqa: N802  protobuf's name.
        """Returns the name of the value `number`; raises ValueError if there is none."""


def named(kind: type[NamedType], names: EnumNames, number: int, prefix: str = "") -> NamedType:
    """Returns the member of `kind` that the wire's `number` stands for.

    It is UNKNOWN, which every such enum has, for a value that this version does not know: services
    may add some at any time.
    """
    try:
        return kind(names.Name(number).removeprefix(prefix))
    except ValueError:
        return kind("UNKNOWN")


def named_on_wire(value: StrEnum, unspecified: str) -> str:
    """Returns the wire's name of `value`; UNKNOWN, which nobody can ask for, is `unspecified`."""
    return unspecified if value.value == "UNKNOWN" else value.value


def moment(value: Timestamp) -> datetime:
    """Returns a time of the wire, in UTC."""
    return value.ToDatetime(tzinfo=UTC)


def moment_if_set(message: Any, field: str) -> datetime | None:
    """Returns the time in a field of `message`, None if it is unset."""
    # Every message that has the field will do, and protobuf has no common type for them.
    return moment(getattr(message, field)) if message.HasField(field) else None


def timestamp(value: datetime) -> Timestamp:
    """Returns `value`, which must be aware, in the wire's form."""
    result = Timestamp()
    result.FromDatetime(value)
    return result
