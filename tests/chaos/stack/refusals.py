"""Says which refusals of a run should not have been, and what should have been refused: S6."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from tests.chaos.stack.exhibits import Exhibits, Proofs
from tests.chaos.stack.plan import Kind

Line = Mapping[str, Any]

NONSENSE = {
    "prompt": "INVALID_FIELD",
    "model": "MODEL_NOT_FOUND",
    "resolution": "RESOLUTION_NOT_SUPPORTED",
    "seed": "INVALID_FIELD",
    "image_uri": "IMAGE_NOT_ACCEPTED",
}
"""Why what there is not is refused, by the field that asks for it."""


def find_wrong_refusals(exhibits: Exhibits) -> Proofs:
    """Who asks for what is theirs is refused nothing but for a reason that is so."""
    created: set[str] = set()
    retryable: set[str] = set()
    for line in exhibits.told:
        if line.get("as_stranger"):
            proofs = _of_stranger(line)
        elif line["outcome"] == "refused":
            proofs = _of_refused(exhibits, line, created, retryable)
        else:
            proofs = _of_answered(exhibits, line)
        for proof in proofs:
            yield "S6", line.get("generation_id", ""), proof
        if line["outcome"] == "ok" and "generation_id" in line["answer"]:
            created.add(line["answer"]["generation_id"])
            if line["answer"]["status"] in ("FAILED", "CANCELED"):
                retryable.add(line["answer"]["generation_id"])


def _of_stranger(line: Line) -> Iterator[str]:
    # Deleting what one does not have is answered with a list of what was deleted: nothing.
    is_list = line["call"] == "delete"
    if line["outcome"] == "ok" and (not is_list or line["answer"].get("deleted_ids")):
        yield f"a stranger's {line['call']} was answered"
    if line["outcome"] == "refused" and (is_list or line["reason"] != "GENERATION_NOT_FOUND"):
        yield f"a stranger's {line['call']} was refused for {line['reason']}"


def _of_answered(exhibits: Exhibits, line: Line) -> Iterator[str]:
    """Yields that something was answered that should have been refused."""
    if line["call"] == "create" and line["outcome"] == "ok":
        wanted = _why_refused(exhibits, line)
        if wanted is not None:
            yield f"its create was to be refused for {wanted}, and was answered"


def _of_refused(
    exhibits: Exhibits, line: Line, created: set[str], retryable: set[str]
) -> Iterator[str]:
    """Yields that something was refused without need.

    `created` are the generations that were told of before, `retryable` those told to have failed.
    """
    reason, generation_id = line["reason"], line.get("generation_id", "")
    match line["call"]:
        case "create":
            wanted = _why_refused(exhibits, line)
            if reason != wanted:
                yield f"its create was refused for {reason}; it may be for {wanted}"
        case "retry":
            of = line["retry_of"]
            if of in retryable or (of in created and reason != "NOT_RETRYABLE"):
                yield f"{of} was to be made again, and that was refused for {reason}"
        case "cancel" if generation_id in created:
            yield from _of_cancel(exhibits, generation_id, reason)
        case "get" | "delete" | "cancel" if generation_id not in created:
            pass  # Nobody knows whether it is there.
        case call:
            yield f"{call} was refused for {reason}"


def _of_cancel(exhibits: Exhibits, generation_id: str, reason: str) -> Iterator[str]:
    row = exhibits.evidence.generations.get(generation_id)
    stage = "not there" if row is None else row["stage"]
    match reason:
        case "ALREADY_SUCCEEDED":
            # Its video may have been lost when it was fetched.
            is_so = stage == "COMPLETED" or (
                stage == "FAILED"
                and any(
                    move["to_stage"] == "ARCHIVING"
                    for move in exhibits.evidence.transitions
                    if move["generation_id"] == generation_id
                )
            )
        case "GENERATION_ENDED":
            is_so = stage in ("FAILED", "REJECTED")
        case _:
            is_so = False
    if not is_so:
        yield f"its cancel was refused for {reason}, and it is {stage}"


def _why_refused(exhibits: Exhibits, line: Line) -> str | None:
    """Returns why a create must be refused; None if it must not."""
    errand = exhibits.errands.get(line["generation_id"])
    changed = next(iter(line.get("changes", {})), None)
    match None if errand is None else Kind(errand["kind"]):
        case Kind.BAD:
            return NONSENSE.get(changed or "")
        case Kind.POOR:
            return "INSUFFICIENT_CREDITS"
        case Kind.CONTRARY if changed is not None:
            return "GENERATION_ID_REUSED"
        case _:
            return None


def find_refused_that_are_there(exhibits: Exhibits) -> Proofs:
    """Of an id for which nothing but refusals were told, nothing may be there."""
    outcomes: dict[str, list[Line]] = defaultdict(list)
    for line in exhibits.told:
        if line["call"] in ("create", "retry") and not line.get("as_stranger"):
            outcomes[line["generation_id"]].append(line)
    made = {one.generation_id for one in exhibits.evidence.made}
    for generation_id, lines in outcomes.items():
        if any(line["outcome"] == "ok" for line in lines):
            continue
        reasons = {line["reason"] for line in lines if line["outcome"] == "refused"}
        if not reasons:
            continue  # It was never answered.
        row = exhibits.evidence.generations.get(generation_id)
        if generation_id in made:
            yield "S6", generation_id, f"refused for {reasons}, and the provider made it"
        if row is not None and row["stage"] != "REJECTED":
            yield "S6", generation_id, f"refused for {reasons}, and it is {row['stage']}"
