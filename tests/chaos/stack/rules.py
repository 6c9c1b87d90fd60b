"""Says what a run of the whole stack did wrong; nothing here looks at anything itself.

| rule | what must be so                                                                           |
|------|------------------------------------------------------------------------------------------|
| J…   | what `tests.chaos.judge` demands of generation: J1 one prediction, J3 time, J4 the gate   |
| S1   | COMPLETED is committed at its price, and its video is there, plays, and is its own        |
| S2   | FAILED and CANCELED are refunded; every reservation is settled and belongs to a generatio |
| S3   | a prediction that costs something is the one that a completed generation uses, or booked  |
| S4   | every balance is the sum of its transactions, and of what its user was given and charged  |
| S5   | what a client was told is true in the end                                                 |
| S6   | what was refused made nothing                                                             |
| S7   | what was repeated was answered alike, and versions never fell                             |
| S8   | nothing exists that nobody asked for                                                      |
| S9   | what the webhook service acknowledged is in its inbox, and what it delivered has arrived  |
| S10  | no process ended by itself, and nobody was told of a defect                               |
| S11  | the run came to its end                                                                   |
| S12  | the provider has nothing against us                                                       |
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any

from tests.chaos.evidence import Row
from tests.chaos.judge import Finding, judge
from tests.chaos.saga_table import ENDS
from tests.chaos.stack.exhibits import Exhibits

UNUSED = frozenset({1, 4})
"""The provider's rules about what is not used: what it costs, and that it is canceled."""
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

Proofs = Iterator[tuple[str, str, str]]
"""Rule, generation and proof."""


def judge_all(exhibits: Exhibits) -> list[Finding]:
    """Returns what a run did wrong; nothing if it was good."""
    found = list(judge(exhibits.evidence))
    for rule in (
        _completed, _refunded, _costs, _balances, _told, _refusals, _repetitions, _unasked,
        _acknowledged, _defects, _ends, _provider,
    ):  # fmt: skip
        found += [Finding(*proof) for proof in rule(exhibits)]
    return found


def _completed(exhibits: Exhibits) -> Proofs:
    for generation_id, row in exhibits.evidence.generations.items():
        if row["stage"] != "COMPLETED":
            continue
        key = row["output_key"]
        booked = exhibits.reservations.get((row["user_id"], generation_id))
        if booked is None or (booked["state"], booked["committed"]) != (
            "COMMITTED", row["price_credits"],
        ):  # fmt: skip
            yield "S1", generation_id, f"COMPLETED, and its credits are {_state(booked)}"
        is_there = key in exhibits.evidence.file_sizes
        if row["deleted_at"] is not None:
            if row["erased_at"] is not None and is_there:
                yield "S1", generation_id, f"{key} was erased, and is still there"
            if row["erased_at"] is None and row["erase_at"] is None:
                yield "S1", generation_id, "it was deleted, and nobody is to erase its files"
        elif not is_there:
            yield "S1", generation_id, f"COMPLETED, and {key} is not stored"
        else:
            if exhibits.titles.get(key) != row["job_id"]:
                title = exhibits.titles.get(key)
                yield "S1", generation_id, f"its video is of {title!r}, and not of {row['job_id']}"
            if exhibits.digests.get(key) != row["output_sha256"]:
                yield "S1", generation_id, f"{key} is not what was stored there"


def _state(reservation: Row | None) -> str:
    return "nowhere" if reservation is None else f"{reservation['state']}"


def _refunded(exhibits: Exhibits) -> Proofs:
    generations = exhibits.evidence.generations
    for generation_id, row in generations.items():
        booked = exhibits.reservations.get((row["user_id"], generation_id))
        resolutions = [
            one["type"]
            for one in exhibits.transactions
            if one["user_id"] == row["user_id"] and one["reservation_id"] == generation_id
            and one["type"] != "RESERVATION"
        ]  # fmt: skip
        if len(resolutions) > 1:
            yield "S2", generation_id, f"its credits were settled by {' and '.join(resolutions)}"
        is_full = row["refund_percent"] in (None, 100)
        is_refunded = booked is not None and booked["state"] == "REFUNDED"
        if row["stage"] in ("FAILED", "CANCELED") and is_full and not is_refunded:
            yield "S2", generation_id, f"{row['stage']}, and its credits are {_state(booked)}"
    for (user, reservation_id), booked in exhibits.reservations.items():
        if reservation_id not in generations:
            yield "S2", reservation_id, f"{user} has credits {booked['state']} for nothing"
        elif booked["state"] == "RESERVED":
            stage = generations[reservation_id]["stage"]
            yield "S2", reservation_id, f"{stage}, and its credits are neither spent nor returned"


def _costs(exhibits: Exhibits) -> Proofs:
    evidence = exhibits.evidence
    booked = {row["job_id"]: row for row in evidence.predictions}
    for one in evidence.made:
        if one.generation_id not in evidence.generations:
            yield (
                "S3",
                one.generation_id,
                f"{one.job_id} was made for a generation that is not there",
            )
            continue
        row = evidence.generations[one.generation_id]
        is_used = row["job_id"] == one.job_id
        if one.is_charged and not is_used and booked.get(one.job_id, {}).get("role") != "ORPHAN":
            yield "S3", one.generation_id, f"{one.job_id} costs, and nobody uses it or knows of it"
    for generation_id, row in evidence.generations.items():
        paid = [
            one.job_id
            for one in evidence.made
            if one.generation_id == generation_id and one.is_charged
            and booked.get(one.job_id, {}).get("role") == "ADOPTED"
        ]  # fmt: skip
        if len(paid) > 1 or (row["stage"] == "COMPLETED" and paid != [row["job_id"]]):
            yield "S3", generation_id, f"{row['stage']} by {row['job_id']}, and {paid} were paid"


def _balances(exhibits: Exhibits) -> Proofs:
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    given: dict[str, int] = defaultdict(int)
    for line in exhibits.noted:
        if line["kind"] == "given":
            given[line["user_id"]] += line["credits"]
    for one in exhibits.transactions:
        sums[one["user_id"]][0] += one["available_delta"]
        sums[one["user_id"]][1] += one["reserved_delta"]
        sums[one["user_id"]][2] += 1
    charged: dict[str, int] = defaultdict(int)
    for row in exhibits.evidence.generations.values():
        charged[row["user_id"]] += row["charged_credits"]
    for user, account in exhibits.accounts.items():
        has = [account["available"], account["reserved"], account["version"]]
        if has != sums[user]:
            yield "S4", "", f"{user} has {has}, and the transactions say {sums[user]}"
        if account["available"] + account["reserved"] != given[user] - charged[user]:
            yield (
                "S4",
                "",
                (
                    f"{user} was given {given[user]} and charged {charged[user]}, "
                    f"and has {account['available']} and {account['reserved']} reserved"
                ),
            )


def _answers(exhibits: Exhibits) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Yields each answer about a generation to its user, with what was told of."""
    for line in exhibits.told:
        answer = line.get("answer") or {}
        if line["outcome"] == "ok" and "generation_id" in answer:
            yield line, answer


def _told(exhibits: Exhibits) -> Proofs:
    generations = exhibits.evidence.generations
    for line, answer in _answers(exhibits):
        generation_id = answer["generation_id"]
        row = generations.get(generation_id)
        if row is None:
            yield "S5", generation_id, f"{line['call']} told of it, and it is not there"
            continue
        if row["user_id"] != line["user_id"]:
            yield "S5", generation_id, f"{line['user_id']} was told of what is {row['user_id']}'s"
        status = answer["status"]
        if status in FINAL and status != _status(row["stage"]):
            yield "S5", generation_id, f"it was told to be {status}, and is {row['stage']}"
        if status in FINAL and answer["charged_credits"] != row["charged_credits"]:
            told = answer["charged_credits"]
            yield "S5", generation_id, f"{told} were told as charged, {row['charged_credits']} are"
        if (
            line["call"] == "cancel"
            and row["refund_percent"] is None
            and not _outran(exhibits, row)
        ):
            yield "S5", generation_id, f"its cancel was accepted, and it is {row['stage']}"
        if answer["version"] > row["version"]:
            yield "S5", generation_id, f"version {answer['version']} was told of {row['version']}"
    for line in exhibits.told:
        for generation_id in (line.get("answer") or {}).get("deleted_ids", ()):
            row = generations.get(generation_id)
            if row is None or row["deleted_at"] is None:
                yield "S5", generation_id, "it was told to be deleted, and is not"
        if line["call"] == "balance" and line["outcome"] == "ok":
            yield from _balance_told(exhibits, line)


def _outran(exhibits: Exhibits, row: Row) -> bool:
    """Tells whether the provider was done before the cancel came to it; its video may be lost."""
    return row["stage"] in ("COMPLETED", "FAILED") and any(
        move["from_stage"] in ("SUBMITTING", "CANCELING") and move["to_stage"] == "ARCHIVING"
        for move in exhibits.evidence.transitions
        if move["generation_id"] == row["generation_id"]
    )


def _balance_told(exhibits: Exhibits, line: Mapping[str, Any]) -> Proofs:
    account = exhibits.accounts.get(line["user_id"])
    has = None if account is None else [account["available"], account["reserved"]]
    told = [line["answer"]["available_credits"], line["answer"]["reserved_credits"]]
    if told != has:
        yield "S5", "", f"{line['user_id']} was told of {told} in the end, and has {has}"


def _status(stage: str) -> str:
    return {"REJECTED": "FAILED"}.get(stage, stage)


def _refusals(exhibits: Exhibits) -> Proofs:
    """Of an id for which nothing but refusals were told, nothing may be there."""
    outcomes: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
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
    for line in exhibits.told:
        if line.get("as_stranger") and line["outcome"] == "ok" and _deleted_nothing(line):
            yield "S6", line["generation_id"], f"a stranger's {line['call']} was answered"


def _deleted_nothing(line: Mapping[str, Any]) -> bool:
    # Deleting what one does not have is answered with a list of what was deleted: nothing.
    return line["call"] != "delete" or bool(line["answer"].get("deleted_ids"))


def _repetitions(exhibits: Exhibits) -> Proofs:
    by_generation: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
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


def _unasked(exhibits: Exhibits) -> Proofs:
    asked = {line["generation_id"] for line in exhibits.told if "generation_id" in line}
    for generation_id, row in exhibits.evidence.generations.items():
        if generation_id not in asked:
            yield "S8", generation_id, f"nobody asked for it, and it is {row['stage']}"


def _acknowledged(exhibits: Exhibits) -> Proofs:
    stored = {row["webhook_id"] for row in exhibits.inbox}
    for attempt in exhibits.webhooks:
        is_taken = attempt["status"] is not None and 200 <= attempt["status"] < 300
        if is_taken and attempt["webhook_id"] not in stored:
            yield (
                "S9",
                "",
                (
                    f"{attempt['webhook_id']} ({attempt['event']} of {attempt['job_id']}) was "
                    f"acknowledged with {attempt['status']}, and is not in the inbox"
                ),
            )
    recorded = {_event_key(row) for row in exhibits.events}
    for row in exhibits.inbox:
        key, generation_id = _event_key(row), row["generation_id"]
        if row["state"] == "PENDING":
            yield "S9", generation_id, f"{row['webhook_id']} still waits to be delivered"
        elif row["state"] == "DEAD" and not (row["disposition"] or row["drop_reason"]):
            yield "S9", generation_id, f"{row['webhook_id']} is DEAD for {row['last_error']}"
        elif row["state"] == "DELIVERED" and key not in recorded:
            yield "S9", generation_id, f"{row['webhook_id']} was delivered, and did not arrive"


def _event_key(row: Row) -> tuple[Any, ...]:
    return row["webhook_id"], row["body_sha256"], row["generation_id"], row["attempt"]


def _defects(exhibits: Exhibits) -> Proofs:
    for line in exhibits.noted:
        if line["kind"] == "crashed":
            yield "S10", "", f"{line['place']} ended by itself with {line['code']}: {line['log']}"
        if line["kind"] in ("left", "stubborn"):
            yield "S10", "", f"{line['place']} was told to leave, and ended with {line.get('code')}"
    for line in exhibits.told:
        if line.get("reason") == "INTERNAL_FAILURE":
            yield "S10", line.get("generation_id", ""), f"{line['call']}: {line['message']}"


def _ends(exhibits: Exhibits) -> Proofs:
    kinds = [line["kind"] for line in exhibits.noted]
    if "over" not in kinds:
        yield "S11", "", "the run was broken off"
    for line in exhibits.noted:
        if line["kind"] == "unsettled":
            left: Sequence[str] = line["left"]
            yield "S11", "", f"{len(left)} things were not done in time: {'; '.join(left[:5])}"
    limit = timedelta(seconds=exhibits.evidence.limits.ended_within_s)
    for generation_id, row in exhibits.evidence.generations.items():
        is_late = exhibits.evidence.read_at > row["deadline_at"] + limit
        if row["stage"] == "PARKED" or (row["stage"] not in ENDS and is_late):
            reason = row.get("park_reason") or "it is past its deadline"
            yield "S11", generation_id, f"it is {row['stage']}: {reason}"


def _provider(exhibits: Exhibits) -> Proofs:
    booked = {row["job_id"]: row for row in exhibits.evidence.predictions}
    for violation in exhibits.provider_violations:
        made = violation["predictions"]
        row = booked.get(made[0], {}) if len(made) == 1 else {}
        # The provider takes for known what only the inbox knew, while generation was away, and for
        # a further charge what nobody else was charged for. J1 knows when it came to be known.
        if violation["rule"] in UNUSED and row.get("role") == "ORPHAN":
            continue
        yield "S12", violation["group"], f"rule {violation['rule']}: {violation['proof']}"
