"""Finds what is wrong with a request from the annotations of its fields.

`google.api.field_behavior = REQUIRED` must be set (AIP-203), and fields of certain names have one
form wherever they occur. What only a service knows (ranges, lengths, its catalog) it adds as a
check.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from services.runtime.errors import FieldViolation, InvalidRequest

__all__ = ["PAGE_SIZE_MAX", "Check", "Validator", "rule_broken"]

PAGE_SIZE_MAX = 1000
REPEATED_MAX = 1000

Check = Callable[[Any], Iterator[FieldViolation]]
"""Yields what a service finds wrong with a message, beyond its annotations."""


@dataclass(frozen=True, slots=True)
class _Form:
    pattern: re.Pattern[str]
    rule: str


_ID = _Form(re.compile(r"[A-Za-z0-9_-]{1,64}"), "must be 1 to 64 characters of A-Z a-z 0-9 _ -")
_UUID = _Form(
    re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"),
    "must be a UUID in lower case with hyphens",
)
_WEBHOOK_ID = _Form(re.compile(r"[!-~]{1,256}"), "must be 1 to 256 visible ASCII characters")
_NUMBER = _Form(
    re.compile(r"[1-9][0-9]{0,17}"),
    "must be a decimal number of 1 to 18 digits that does not begin with 0",
)
_FORMS = {
    "user_id": _ID,
    "reservation_id": _ID,
    "generation_id": _UUID,
    "generation_ids": _UUID,
    "new_generation_id": _UUID,
    "request_id": _Form(re.compile(r"[!-~]{1,64}"), "must be 1 to 64 visible ASCII characters"),
    "webhook_id": _WEBHOOK_ID,
    "webhook_ids": _WEBHOOK_ID,
    "event_id": _NUMBER,
    "event_ids": _NUMBER,
}


@dataclass(frozen=True, slots=True)
class _Rule:
    """What a field must satisfy."""

    name: str
    required: bool
    has_presence: bool
    repeated: bool
    nested: bool
    number: bool
    form: _Form | None


def rule_broken(field: str, text: str) -> str:
    """Returns the rule that `text` breaks in a field of this name; "" if it keeps to it."""
    form = _FORMS[field]
    return "" if form.pattern.fullmatch(text) else form.rule


class Validator:
    """Judges requests; the rules of a message are read from its descriptor once.

    `checks` maps the full name of a message to what its service checks besides. `late_checks` are
    those that the servicer makes itself, once it knows more; here they only add to what is wrong
    already, so that all bad fields are named at once.
    """

    def __init__(
        self,
        checks: Mapping[str, Check] | None = None,
        late_checks: Mapping[str, Check] | None = None,
    ) -> None:
        self._checks = checks or {}
        self._late_checks = late_checks or {}
        self._rules: dict[str, tuple[_Rule, ...]] = {}

    def validate(self, message: Message) -> None:
        """Raises InvalidRequest that lists every bad field of `message`, if there is any."""
        violations = list(self._violations(message, ""))
        name = message.DESCRIPTOR.full_name
        if name in self._checks:
            violations += self._checks[name](message)
        if violations and name in self._late_checks:
            violations += self._late_checks[name](message)
        # One rule a field, the first: the form of a field says more than what follows from it.
        violations = list({violation.field: violation for violation in violations[::-1]}.values())[
            ::-1
        ]
        if violations:
            raise InvalidRequest(violations)

    def _violations(self, message: Message, prefix: str) -> Iterator[FieldViolation]:
        for rule in self._rules_of(cast("Descriptor", message.DESCRIPTOR)):
            path = prefix + rule.name
            value = getattr(message, rule.name)
            if rule.repeated:
                yield from _repeated_violations(path, value, rule)
            elif not (message.HasField(rule.name) if rule.has_presence else value):
                if rule.required:
                    yield FieldViolation(path, "must be set" + (", not 0" if rule.number else ""))
            elif rule.form is not None and rule.form.pattern.fullmatch(value) is None:
                yield FieldViolation(path, rule.form.rule)
            elif rule.name == "page_size" and not 0 <= value <= PAGE_SIZE_MAX:
                yield FieldViolation(path, f"must be between 0 and {PAGE_SIZE_MAX}")
            elif rule.nested:
                yield from self._violations(value, f"{path}.")

    def _rules_of(self, message: Descriptor) -> tuple[_Rule, ...]:
        rules = self._rules.get(message.full_name)
        if rules is None:
            rules = self._rules[message.full_name] = tuple(
                rule for field in message.fields if (rule := _rule(field)) is not None
            )
        return rules


def _repeated_violations(path: str, values: Any, rule: _Rule) -> Iterator[FieldViolation]:
    if len(values) > REPEATED_MAX:
        yield FieldViolation(path, f"must have at most {REPEATED_MAX} elements")
    elif rule.required and not values:
        yield FieldViolation(path, "must not be empty")
    elif rule.form is not None:
        for index, value in enumerate(values):
            if rule.form.pattern.fullmatch(value) is None:
                yield FieldViolation(f"{path}[{index}]", rule.form.rule)


def _rule(field: FieldDescriptor) -> _Rule | None:
    """Returns what `field` must satisfy; None if anything will do."""
    behaviors = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    rule = _Rule(
        name=field.name,
        required=field_behavior_pb2.REQUIRED in behaviors,
        has_presence=field.has_presence,
        repeated=field.is_repeated,
        nested=(
            field.message_type is not None
            and not field.message_type.full_name.startswith("google.")
        ),
        number=field.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64),
        form=_FORMS.get(field.name),
    )
    matters = rule.required or rule.form or rule.nested or rule.repeated
    return rule if matters or rule.name == "page_size" else None
