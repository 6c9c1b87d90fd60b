"""Says which webhooks of a run were lost, invented or believed though nobody could vouch for them:
S9."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from tests.chaos.evidence import Row
from tests.chaos.stack.exhibits import Exhibits, Proofs

FORGED = frozenset({"bad_signature", "wrong_secret", "missing_header", "tamper_body"})
"""Faults of an attempt after which no signature of it is right."""
UNREADABLE = "not_json"


def find_lost_webhooks(exhibits: Exhibits) -> Proofs:
    """What was acknowledged is stored, and what is stored was sent, and arrived."""
    stored = {row["webhook_id"] for row in exhibits.inbox}
    attempts: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for attempt in exhibits.webhooks:
        attempts[attempt["webhook_id"]].append(attempt)
        for proof in _wrong_answers(attempt, attempt["webhook_id"] in stored):
            yield (
                "S9",
                "",
                f"{attempt['webhook_id']} ({attempt['event']} of {attempt['job_id']}) {proof}",
            )
    recorded = {_key(row) for row in exhibits.events}
    for row in exhibits.inbox:
        faults = [one["fault"] for one in attempts[row["webhook_id"]] if _was_sent(one)]
        for proof in _wrong_row(row, faults, is_recorded=_key(row) in recorded):
            yield "S9", row["generation_id"], f"{row['webhook_id']} {proof}"


def _wrong_answers(attempt: Mapping[str, Any], is_stored: bool) -> Iterator[str]:
    status = attempt["status"]
    if status is None or not 200 <= status < 300:
        return
    if not is_stored:
        yield f"was acknowledged with {status}, and is not in the inbox"
    if attempt["fault"] in FORGED:
        yield f"was sent with {attempt['fault']}, and acknowledged with {status}"


def _was_sent(attempt: Mapping[str, Any]) -> bool:
    return bool(attempt["failure"] != "never sent")


def _wrong_row(row: Row, faults: list[str | None], *, is_recorded: bool) -> Iterator[str]:
    if not faults:
        yield "is in the inbox, and the provider did not send it"
    match row["state"]:
        case "PENDING":
            yield "still waits to be delivered"
        case "DEAD" if row["disposition"] != "UNREADABLE":
            yield f"is DEAD for {row['disposition'] or row['last_error']}"
        case "DEAD" if faults and UNREADABLE not in faults:
            yield f"is DEAD for UNREADABLE, and was sent with {faults}"
        case "DELIVERED" if not is_recorded:
            yield "was delivered, and did not arrive"


def _key(row: Row) -> tuple[Any, ...]:
    return row["webhook_id"], row["body_sha256"], row["generation_id"], row["attempt"]
