"""The actions at calls of the API, at files, in the life of predictions, and on the world."""

from typing import Annotated, Literal

from pydantic import Field

from services.simulator.faults.action import API, SHOWN, Action, Operation, Seconds

__all__ = [
    "Abort", "AnswerAction", "CancelRace", "CancelStatus", "CreateLate", "CreateThenDrop",
    "CreateThenHang", "CreateThenStatus", "DataRemovedEarly", "Drop", "DuplicateAcrossPages",
    "Empty200", "ExpireNow", "Fail", "FileAction", "HugeHeaders", "Jump", "LifeAction",
    "ListAction", "ListLag", "MalformedJson", "NextOnForeignHost", "NoCredit", "NoVersion",
    "NotMp4", "NullModel", "Offset", "OmitFromList", "OmitWebhook", "OutputShape", "PageShift",
    "Redirect", "ResetMidway", "Rotate", "SchemaDrift", "ShownAction", "Skew", "SlowBoot",
    "SlowBytes", "Stale", "Status", "StuckStarting", "SucceedWith", "Throttle", "Truncate",
    "UnknownFields", "UnknownStatus", "WebhookBeforeCreateAnswer", "WorldAction", "WrongLength",
    "WrongType",
]  # fmt: skip

ErrorStatus = Annotated[int, Field(ge=400, le=599)]
ANSWERED = API | {Operation.FILE}


# Instead of an answer: nothing is done.


class Status(Action, at=ANSWERED):
    """Answers with an error, in Replicate's shape or as a proxy's page of HTML."""

    kind: Literal["status"] = "status"
    status: ErrorStatus
    html: bool = False


class Throttle(Action, at=API):
    """Answers 429 and says in the header, in the body, in both or in neither when to come again."""

    kind: Literal["throttle"] = "throttle"
    retry_after_s: Seconds = 1.0
    told_in: Literal["header", "body", "both", "neither"] = "both"


class NoCredit(Action, at=API):
    """Answers 402: the account has run out of credit."""

    kind: Literal["no_credit"] = "no_credit"


class Drop(Action, at=ANSWERED):
    """Closes the connection without an answer, and does nothing."""

    kind: Literal["drop"] = "drop"


class Redirect(Action, at=ANSWERED):
    """Answers 302; it leads to the other listener, whose journal shows who followed with what."""

    kind: Literal["redirect"] = "redirect"


# After the work is done: its answer is lost or spoiled.


class CreateThenDrop(Action, at=Operation.CREATE):
    """Creates, and closes the connection without an answer."""

    kind: Literal["create_then_drop"] = "create_then_drop"


class CreateThenHang(Action, at=Operation.CREATE):
    """Creates, says nothing for `hang_s`, and closes the connection."""

    kind: Literal["create_then_hang"] = "create_then_hang"
    hang_s: Seconds = 60.0


class CreateThenStatus(Action, at=Operation.CREATE):
    """Creates, and answers with a server's error all the same."""

    kind: Literal["create_then_status"] = "create_then_status"
    status: Annotated[int, Field(ge=500, le=599)] = 500
    html: bool = False


class CreateLate(Action, at=Operation.CREATE):
    """Closes the connection first; the prediction appears `late_s` later."""

    kind: Literal["create_late"] = "create_late"
    late_s: Seconds = 2.0


class WebhookBeforeCreateAnswer(Action, at=Operation.CREATE):
    """Creates, and answers once the first webhook has been sent, at the latest after `most_s`."""

    kind: Literal["before_create_answer"] = "before_create_answer"
    most_s: Seconds = 10.0


class CancelStatus(Action, at=Operation.CANCEL):
    """Cancels, and answers with an error all the same; `status` cancels nothing."""

    kind: Literal["cancel_status"] = "cancel_status"
    status: ErrorStatus


class MalformedJson(Action, at=API):
    """Answers with the first half of the JSON."""

    kind: Literal["malformed_json"] = "malformed_json"


class Empty200(Action, at=API):
    """Answers 200 without a body."""

    kind: Literal["empty_200"] = "empty_200"


class HugeHeaders(Action, at=API):
    """Puts so many bytes of headers before the answer."""

    kind: Literal["huge_headers"] = "huge_headers"
    size_bytes: Annotated[int, Field(ge=1, le=16 * 1024 * 1024)] = 256 * 1024


class SlowBytes(Action, at=ANSWERED):
    """Lets the body of the answer drip."""

    kind: Literal["slow_bytes"] = "slow_bytes"
    bytes_per_s: Annotated[float, Field(gt=0, le=1e9)] = 100.0


AnswerAction = (
    Status | Throttle | NoCredit | Drop | Redirect
    | CreateThenDrop | CreateThenHang | CreateThenStatus | CreateLate | WebhookBeforeCreateAnswer
    | CancelStatus | MalformedJson | Empty200 | HugeHeaders | SlowBytes
)  # fmt: skip
"""What can happen to the answer of a call of the API."""


# A prediction as an answer shows it.


class UnknownStatus(Action, at=SHOWN):
    """Shows a status that no documentation names."""

    kind: Literal["unknown_status"] = "unknown_status"
    status: str = "queued"


class NullModel(Action, at=SHOWN):
    """Shows `model` as null."""

    kind: Literal["null_model"] = "null_model"


class NoVersion(Action, at=SHOWN):
    """Leaves `version` away."""

    kind: Literal["no_version"] = "no_version"


class UnknownFields(Action, at=SHOWN):
    """Adds fields that no documentation names."""

    kind: Literal["unknown_fields"] = "unknown_fields"


class OmitWebhook(Action, at=SHOWN):
    """Leaves `webhook` and its filter away."""

    kind: Literal["omit_webhook"] = "omit_webhook"


class DataRemovedEarly(Action, at=SHOWN):
    """Shows the prediction as it is after its retention."""

    kind: Literal["data_removed_early"] = "data_removed_early"


class Stale(Action, at=frozenset({Operation.GET, Operation.LIST})):
    """Shows the prediction as it was `age_s` ago; 404, or no item, if it was not there yet."""

    kind: Literal["stale"] = "stale"
    age_s: Seconds


class OmitFromList(Action, at=Operation.LIST):
    """Leaves the prediction out of a list."""

    kind: Literal["omit_from_list"] = "omit_from_list"


ShownAction = (
    UnknownStatus | NullModel | NoVersion | UnknownFields | OmitWebhook | DataRemovedEarly
    | Stale | OmitFromList
)  # fmt: skip
"""What can happen to one prediction in an answer; in a list to each item by itself."""


# A page of a list.


class ListLag(Action, at=Operation.LIST):
    """Leaves out what was created in the last `lag_s`."""

    kind: Literal["list_lag"] = "list_lag"
    lag_s: Seconds = 20.0


class DuplicateAcrossPages(Action, at=Operation.LIST):
    """Lets the next page begin with the last prediction of this one."""

    kind: Literal["duplicate_across_pages"] = "duplicate_across_pages"


class PageShift(Action, at=Operation.LIST):
    """Lets the next page begin one prediction too late."""

    kind: Literal["page_shift"] = "page_shift"


class NextOnForeignHost(Action, at=Operation.LIST):
    """Gives an address of the delivery listener for the next page."""

    kind: Literal["next_on_foreign_host"] = "next_on_foreign_host"


ListAction = ListLag | DuplicateAcrossPages | PageShift | NextOnForeignHost
"""What can happen to a page of a list."""


# The life of a prediction, drawn when it is created.


class StuckStarting(Action, at=Operation.LIFE):
    """Never starts: only a cancel or its deadline ends it."""

    kind: Literal["stuck_starting"] = "stuck_starting"


class SlowBoot(Action, at=Operation.LIFE):
    """Takes so long to start, divided by the simulator's speed."""

    kind: Literal["slow_boot"] = "slow_boot"
    boot_s: Seconds = 600.0


class Fail(Action, at=Operation.LIFE):
    """Fails while it runs, with this text; the default is one that is worth another attempt."""

    kind: Literal["fail"] = "fail"
    error: Annotated[str, Field(min_length=1, max_length=10_000)] = (
        "Prediction interrupted; please retry (code: PA)"
    )


OutputShape = Literal["null", "empty_list", "list", "data_url", "http_url", "foreign_host"]


class SucceedWith(Action, at=Operation.LIFE):
    """Succeeds with an output in another shape than the one address that is usual."""

    kind: Literal["succeed_with"] = "succeed_with"
    output: OutputShape


class Abort(Action, at=Operation.LIFE):
    """Ends before it starts."""

    kind: Literal["abort"] = "abort"


LifeAction = StuckStarting | SlowBoot | Fail | SucceedWith | Abort
"""What can happen to a prediction."""


class CancelRace(Action, at=Operation.CANCEL):
    """Answers a cancel with the prediction as it was; then it is canceled, or runs to its end."""

    kind: Literal["cancel_race"] = "cancel_race"
    winner: Literal["cancel", "run"] = "run"


# Files.


class Truncate(Action, at=Operation.FILE):
    """Gives the first half of a file as if it were the whole."""

    kind: Literal["truncate"] = "truncate"


class WrongLength(Action, at=Operation.FILE):
    """Announces more bytes than there are, and closes the connection after the last."""

    kind: Literal["wrong_length"] = "wrong_length"


class WrongType(Action, at=Operation.FILE):
    """Gives the file as `text/html`."""

    kind: Literal["wrong_type"] = "wrong_type"


class NotMp4(Action, at=Operation.FILE):
    """Gives a page of HTML as `video/mp4`."""

    kind: Literal["not_mp4"] = "not_mp4"


class ResetMidway(Action, at=Operation.FILE):
    """Resets the connection after half of the file."""

    kind: Literal["reset_midway"] = "reset_midway"


FileAction = (
    Status | Drop | Redirect | SlowBytes
    | Truncate | WrongLength | WrongType | NotMp4 | ResetMidway
)  # fmt: skip
"""What can happen to a file that is fetched."""


# The world; carried out before the operation at which they fire.


class ExpireNow(Action, at=Operation.FILE):
    """Ends the retention of the prediction whose video is asked for."""

    kind: Literal["expire_now"] = "expire_now"


class SchemaDrift(Action, at=frozenset(Operation)):
    """Puts all models onto this generation of input schemas."""

    kind: Literal["schema_drift"] = "schema_drift"
    generation: Literal["current", "spring-2025"] = "spring-2025"


class Rotate(Action, at=frozenset(Operation)):
    """Gives every account a new signing secret; the old ones go on signing beside it."""

    kind: Literal["rotate"] = "rotate"
    overlap_s: Annotated[float, Field(ge=0, le=86_400)] = 0.0


Offset = Annotated[float, Field(ge=-86_400, le=86_400, allow_inf_nan=False)]
"""By how much a clock is ahead, or behind if negative."""


class Skew(Action, at=frozenset(Operation)):
    """Lets every clock reading that is shown be wrong by `skew_s`, ahead if positive."""

    kind: Literal["skew"] = "skew"
    skew_s: Offset


class Jump(Action, at=frozenset(Operation)):
    """Moves the provider's clock by `jump_s`, so that lives, deadlines and retention move too."""

    kind: Literal["jump"] = "jump"
    jump_s: Offset


WorldAction = ExpireNow | SchemaDrift | Rotate | Skew | Jump
"""What changes the stand-in itself."""
