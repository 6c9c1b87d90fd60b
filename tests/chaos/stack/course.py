"""Says what was wrong with a run as a whole: defects (S10), and whether it came to its end and left
all the evidence (S11)."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from tests.chaos.saga_table import ENDS
from tests.chaos.stack.exhibits import Exhibits, Proofs
from tests.chaos.stack.plan import Kind

MADE = ("done", "skipped", "failed")
"""What is noted of each trouble of a plan, in the end."""
DEFECTS = frozenset({"INTERNAL", "UNKNOWN"})
"""Statuses of what no service of ours means to answer, and no network that breaks."""


def find_defects(exhibits: Exhibits) -> Proofs:
    """No process ends by itself, and nobody is told of a defect."""
    for line in exhibits.noted:
        if line["kind"] == "crashed":
            yield "S10", "", f"{line['place']} ended by itself with {line['code']}: {line['log']}"
        if line["kind"] in ("left", "stubborn"):
            yield "S10", "", f"{line['place']} was told to leave, and ended with {line.get('code')}"
    for line in exhibits.told:
        if line.get("reason") == "INTERNAL_FAILURE" or line.get("status") in DEFECTS:
            told = f"{line['status']} {line['reason']}: {line['message']}"
            yield "S10", line.get("generation_id", ""), f"{line['call']} was answered {told}"


def find_open_ends(exhibits: Exhibits) -> Proofs:
    """The run came to its end, and so did all that was begun in it."""
    if not any(line["kind"] == "over" for line in exhibits.noted):
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


def find_missing_evidence(exhibits: Exhibits) -> Proofs:
    """All was done that was planned, and all is known of it."""
    plan = exhibits.plan
    if plan is None:
        yield "S11", "", "nobody knows the plan"
    else:
        kinds = Counter(line["kind"] for line in exhibits.noted)
        made, planned = sum(kinds[kind] for kind in MADE), len(plan["troubles"])
        if made != planned:
            yield "S11", "", f"{planned} troubles were planned, and {made} are accounted for"
        is_completed = any(
            row["stage"] == "COMPLETED" for row in exhibits.evidence.generations.values()
        )
        if any(one["kind"] == Kind.PLAIN for one in plan["errands"]) and not is_completed:
            yield "S11", "", "videos were asked for, and none was made"
    for line in exhibits.noted:
        if line["kind"] == "failed":
            yield "S11", "", f"{line['trouble']} was to be done, and failed: {line['error']}"
    for what, count in exhibits.provider_missing.items():
        if count:
            yield "S11", "", f"the provider has forgotten {count} of its {what}"
    asked = {call.job_id for call in exhibits.evidence.calls if call.is_create}
    for one in exhibits.evidence.made:
        if one.job_id not in asked:
            yield "S11", one.generation_id, f"{one.job_id} was made, and no create of it is known"
    told = Counter(
        line["user_id"]
        for line in exhibits.told
        if line["call"] == "balance" and line["outcome"] == "ok"
    )
    for user in exhibits.accounts:
        if told[user] != 1:
            yield "S11", "", f"{user} was told {told[user]} balances in the end"
