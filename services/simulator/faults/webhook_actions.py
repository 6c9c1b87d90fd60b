"""The actions at webhooks: on an event as a whole, and on each attempt to deliver it."""

from typing import Annotated, Literal

from pydantic import Field

from services.simulator.faults.action import Action, Operation, Seconds

__all__ = [
    "AfterRetention", "AimAtOtherGeneration", "AttemptAction", "BadSignature", "CarryingAction",
    "Chunked", "DelayWebhook", "DropWebhook", "DuplicateHeader", "DuplicateWebhook",
    "EventAction", "Flood", "FractionalTimestamp", "FutureTimestamp", "GarbageTokenFirst",
    "Gzip", "HugeLogs", "MissingHeader", "NotJson", "OtherEnvironment", "Regress", "Reorder",
    "SigningAction", "SlowBody", "StaleTimestamp", "TamperBody", "TamperQuery", "TwoSignatures",
    "V2Only", "WrongMethod", "WrongSecret",
]  # fmt: skip

SignedHeader = Literal["webhook-id", "webhook-timestamp", "webhook-signature"]


# An event: whether, when and how often it is sent.


class DropWebhook(Action, at=Operation.WEBHOOK):
    """Never sends the event."""

    kind: Literal["drop_webhook"] = "drop_webhook"


class DuplicateWebhook(Action, at=Operation.WEBHOOK):
    """Sends the event `copies` times more, at once, under the same `webhook-id` or under others."""

    kind: Literal["duplicate_webhook"] = "duplicate_webhook"
    copies: Annotated[int, Field(ge=1, le=1000)] = 1
    same_id: bool = True


class Reorder(Action, at=Operation.WEBHOOK):
    """Holds the event back until the next one of its prediction has been sent."""

    kind: Literal["reorder"] = "reorder"


class DelayWebhook(Action, at=Operation.WEBHOOK):
    """Sends the event `delay_s` later, with the body that it had."""

    kind: Literal["delay_webhook"] = "delay_webhook"
    delay_s: Seconds


class AfterRetention(Action, at=Operation.WEBHOOK):
    """Sends the event once the data of the prediction has been removed, without that data."""

    kind: Literal["after_retention"] = "after_retention"


class Regress(Action, at=Operation.WEBHOOK):
    """Sends the event, and after it, under a new id, the prediction as it was while it ran."""

    kind: Literal["regress"] = "regress"


class Flood(Action, at=Operation.WEBHOOK):
    """Sends the event, and then again `per_second` times a second for `flood_s`."""

    kind: Literal["flood"] = "flood"
    per_second: Annotated[float, Field(gt=0, le=10_000)] = 100.0
    flood_s: Annotated[float, Field(gt=0, le=600)] = 1.0


EventAction = (
    DropWebhook | DuplicateWebhook | Reorder | DelayWebhook | AfterRetention | Regress | Flood
)
"""What can happen to an event."""


# An attempt: signature and timestamp.


class BadSignature(Action, at=Operation.WEBHOOK):
    """Signs with bytes that no secret gives."""

    kind: Literal["bad_signature"] = "bad_signature"


class WrongSecret(Action, at=Operation.WEBHOOK):
    """Signs with the secret of nobody."""

    kind: Literal["wrong_secret"] = "wrong_secret"


class V2Only(Action, at=Operation.WEBHOOK):
    """Gives the right signature under a version that is not documented."""

    kind: Literal["v2_only"] = "v2_only"


class TwoSignatures(Action, at=Operation.WEBHOOK):
    """Puts the signature of another secret before the right one."""

    kind: Literal["two_signatures"] = "two_signatures"


class GarbageTokenFirst(Action, at=Operation.WEBHOOK):
    """Puts tokens that cannot be read before the right signature."""

    kind: Literal["garbage_token_first"] = "garbage_token_first"


class StaleTimestamp(Action, at=Operation.WEBHOOK):
    """Signs with a time that is `age_s` past."""

    kind: Literal["stale_timestamp"] = "stale_timestamp"
    age_s: Seconds = 600.0


class FutureTimestamp(Action, at=Operation.WEBHOOK):
    """Signs with a time that is `ahead_s` away."""

    kind: Literal["future_timestamp"] = "future_timestamp"
    ahead_s: Seconds = 600.0


class FractionalTimestamp(Action, at=Operation.WEBHOOK):
    """Signs with a time that has a fraction."""

    kind: Literal["fractional_timestamp"] = "fractional_timestamp"


class MissingHeader(Action, at=Operation.WEBHOOK):
    """Leaves one of the three headers away."""

    kind: Literal["missing_header"] = "missing_header"
    header: SignedHeader = "webhook-signature"


class DuplicateHeader(Action, at=Operation.WEBHOOK):
    """Sends one of the three headers in two lines."""

    kind: Literal["duplicate_header"] = "duplicate_header"
    header: SignedHeader = "webhook-signature"


# An attempt: what was signed is not what arrives, or not where.


class TamperBody(Action, at=Operation.WEBHOOK):
    """Changes the body after it was signed."""

    kind: Literal["tamper_body"] = "tamper_body"


class TamperQuery(Action, at=Operation.WEBHOOK):
    """Changes the last character of the address, which no signature covers."""

    kind: Literal["tamper_query"] = "tamper_query"


class AimAtOtherGeneration(Action, at=Operation.WEBHOOK):
    """Puts another generation into the `g` of the address."""

    kind: Literal["aim_at_other_generation"] = "aim_at_other_generation"
    generation: Annotated[str, Field(min_length=1, max_length=100)]


class OtherEnvironment(Action, at=Operation.WEBHOOK):
    """Sends it with the query of another environment that shares the account."""

    kind: Literal["other_environment"] = "other_environment"
    query: Annotated[str, Field(min_length=1, max_length=2000)]


# An attempt: form and size.


class HugeLogs(Action, at=Operation.WEBHOOK):
    """Fills the logs in the body with so many MiB."""

    kind: Literal["huge_logs"] = "huge_logs"
    size_mib: Annotated[float, Field(gt=0, le=64)] = 9.0


class Gzip(Action, at=Operation.WEBHOOK):
    """Compresses the body, whose signature is that of the plain one."""

    kind: Literal["gzip"] = "gzip"


class Chunked(Action, at=Operation.WEBHOOK):
    """Sends the body in chunks, without its length."""

    kind: Literal["chunked"] = "chunked"


class SlowBody(Action, at=Operation.WEBHOOK):
    """Lets the body drip so that it takes `body_s`."""

    kind: Literal["slow_body"] = "slow_body"
    body_s: Seconds = 20.0


class NotJson(Action, at=Operation.WEBHOOK):
    """Sends and signs a body that is no JSON."""

    kind: Literal["not_json"] = "not_json"


class WrongMethod(Action, at=Operation.WEBHOOK):
    """Sends it with PUT."""

    kind: Literal["wrong_method"] = "wrong_method"


SigningAction = (
    BadSignature | WrongSecret | V2Only | TwoSignatures | GarbageTokenFirst
    | StaleTimestamp | FutureTimestamp | FractionalTimestamp | MissingHeader | DuplicateHeader
)  # fmt: skip
"""What can happen to the three headers of an attempt."""

CarryingAction = (
    TamperBody | TamperQuery | AimAtOtherGeneration | OtherEnvironment
    | HugeLogs | Gzip | Chunked | SlowBody | NotJson | WrongMethod
)  # fmt: skip
"""What can happen to body, address and form of an attempt."""

AttemptAction = SigningAction | CarryingAction
"""What can happen to one attempt; the repetitions of an event are attempts of their own."""
