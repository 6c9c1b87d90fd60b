"""Says which answers that people got were wrong: false (S5), refused without need or answered in
spite of it (S6), contradictory (S7), or about what nobody asked for (S8)."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from tests.chaos.evidence import Row
from tests.chaos.stack.exhibits import Exhibits, Proofs
from tests.chaos.stack.plan import Kind

Line = Mapping[str, Any]
"""What somebody was told, or what an answer says."""

FINAL = frozenset({"COMPLETED", "FAILED", "CANCELED"})
STAY = (
    "user_id",
    "kind",
    "model",
    "resolution",
    "prompt",
    "cost_credits",
    "created_at",
    "retry_of",
)
"""What never changes of a generation."""


def find_false_answers(exhibits: Exhibits) -> Proofs:
    """S5: what a client was told is true in the end, and is about what it asked for."""
    generations = exhibits.evidence.generations
    for line, answer in _answers(exhibits):
        generation_id = answer["generation_id"]
        if line["generation_id"] != generation_id:
            proof = f"{line['call']} asked for {line['generation_id']}, and was told of it"
            yield "S5", generation_id, proof
        row = generations.get(generation_id)
        if row is None:
            yield "S5", generation_id, f"{line['call']} told of it, and it is not there"
            continue
        for proof in _false_of(exhibits, row, line, answer):
            yield "S5", generation_id, proof
    for line in exhibits.told:
        if line["call"] == "balance" and line["outcome"] == "ok":
            yield from _balance_told(exhibits, line)
    yield from _deletes_told(exhibits)


def _answers(exhibits: Exhibits) -> Iterator[tuple[Line, Line]]:
    """Yields each answer about a generation to its user, with what was told of."""
    for line in exhibits.told:
        answer = line.get("answer") or {}
        if line["outcome"] == "ok" and "generation_id" in answer:
            yield line, answer


def _false_of(exhibits: Exhibits, row: Row, line: Line, answer: Line) -> Iterator[str]:
    """Yields what an answer says that its generation is not."""
    if row["user_id"] != line["user_id"]:
        yield f"{line['user_id']} was told of what is {row['user_id']}'s"
    status = answer["status"]
    if status in FINAL and status != _status(row["stage"]):
        yield f"it was told to be {status}, and is {row['stage']}"
    if status in FINAL and answer["charged_credits"] != row["charged_credits"]:
        told = answer["charged_credits"]
        yield f"{told} were told as charged, {row['charged_credits']} are"
    if answer["cost_credits"] != row["price_credits"]:
        yield f"{answer['cost_credits']} were told as its price, {row['price_credits']} are it"
    was_canceled = row["refund_percent"] is not None or _outran(exhibits, row)
    if line["call"] == "cancel" and not was_canceled:
        yield f"its cancel was accepted, and it is {row['stage']}"
    if answer["version"] > row["version"]:
        yield f"version {answer['version']} was told of {row['version']}"
    for name, wanted in _asked(exhibits, row["generation_id"]).items():
        if answer[name] != wanted or (row[name] or "") != wanted:
            yield f"its {name} is {row[name]!r}, {wanted!r} was asked for, {answer[name]!r} told"


def _asked(exhibits: Exhibits, generation_id: str) -> Line:
    """Returns what somebody asked to be made under an id; nothing if it is in no plan."""
    errand = exhibits.errands.get(generation_id)
    if errand is None:
        return {}
    is_image = errand["kind"] == Kind.IMAGE
    return {
        "user_id": errand["user"],
        "kind": "IMAGE_TO_VIDEO" if is_image else "TEXT_TO_VIDEO",
        "model": errand["model"],
        "resolution": errand["resolution"],
        "prompt": errand["prompt"],
        "retry_of": errand["generation_id"] if generation_id == errand["other_id"] else "",
    }


def _outran(exhibits: Exhibits, row: Row) -> bool:
    """Tells whether the provider was done before the cancel came to it; its video may be lost."""
    return row["stage"] in ("COMPLETED", "FAILED") and any(
        move["from_stage"] in ("SUBMITTING", "CANCELING") and move["to_stage"] == "ARCHIVING"
        for move in exhibits.evidence.transitions
        if move["generation_id"] == row["generation_id"]
    )


def _balance_told(exhibits: Exhibits, line: Line) -> Proofs:
    account = exhibits.accounts.get(line["user_id"])
    has = None if account is None else [account["available"], account["reserved"]]
    told = [line["answer"]["available_credits"], line["answer"]["reserved_credits"]]
    if told != has:
        yield "S5", "", f"{line['user_id']} was told of {told} in the end, and has {has}"


def _deletes_told(exhibits: Exhibits) -> Proofs:
    ended: set[str] = set()
    for line in exhibits.told:
        answer = line.get("answer") or {}
        if answer.get("status") in FINAL:
            ended.add(answer["generation_id"])
        deleted = answer.get("deleted_ids", ())
        for generation_id in deleted:
            row = exhibits.evidence.generations.get(generation_id)
            if row is None or row["deleted_at"] is None:
                yield "S5", generation_id, "it was told to be deleted, and is not"
        is_mine = line["call"] == "delete" and not line.get("as_stranger")
        if is_mine and line["outcome"] == "ok" and line["generation_id"] in ended - {*deleted}:
            yield "S5", line["generation_id"], "it had ended, and was told not to be deleted"


def _status(stage: str) -> str:
    return {"REJECTED": "FAILED"}.get(stage, stage)


def find_contradictions(exhibits: Exhibits) -> Proofs:
    """S7: what was repeated was answered alike, and versions never fell."""
    by_generation: dict[str, list[Line]] = defaultdict(list)
    by_errand: dict[tuple[int, str], list[int]] = defaultdict(list)
    for line, answer in _answers(exhibits):
        by_generation[answer["generation_id"]].append(answer)
        by_errand[line["errand"], answer["generation_id"]].append(answer["version"])
        for name, wanted in line.get("changes", {}).items():
            if answer.get(name, wanted) != wanted:
                proof = (
                    f"{line['call']} asked for {name} {wanted!r}, and was told of {answer[name]!r}"
                )
                yield "S7", answer["generation_id"], proof
    for generation_id, answers in by_generation.items():
        for name in STAY:
            told = sorted({str(answer[name]) for answer in answers})
            if len(told) > 1:
                yield "S7", generation_id, f"its {name} was told to be {' and '.join(told)}"
    for (_, generation_id), versions in by_errand.items():
        for earlier, later in pairwise(versions):
            if later < earlier:
                yield "S7", generation_id, f"version {later} was told after {earlier}"


def find_unasked(exhibits: Exhibits) -> Proofs:
    """S8: nothing was made, canceled or deleted that its owner did not ask for."""
    asked = {
        (line["call"], line["user_id"], line["generation_id"])
        for line in exhibits.told
        if "generation_id" in line
    }
    for generation_id, row in exhibits.evidence.generations.items():
        mine = {
            call for call, user, named in asked if (user, named) == (row["user_id"], generation_id)
        }
        if not mine & {"create", "retry"}:
            yield "S8", generation_id, f"nobody asked for it, and it is {row['stage']}"
        if row["deleted_at"] is not None and "delete" not in mine:
            yield "S8", generation_id, "nobody deleted it, and it is deleted"
        if row["refund_percent"] is not None and "cancel" not in mine:
            yield "S8", generation_id, f"nobody canceled it, and it is {row['stage']}, as canceled"
