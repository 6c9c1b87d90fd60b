"""Says what a run of the whole stack did wrong; nothing here looks at anything itself.

| rule | what must be so                                                                           |
|------|------------------------------------------------------------------------------------------|
| J…   | what `tests.chaos.judge` demands of generation: J1 one prediction, J3 time, J4 the gate   |
| S1   | COMPLETED is committed at its price, and its video is there, plays, and is its own        |
| S2   | FAILED and CANCELED are refunded; every reservation is settled and belongs to a generatio |
| S3   | a prediction that costs something is the one that a completed generation uses, or booked  |
| S4   | every balance is the sum of its transactions, every reservation is set aside and settled  |
|      | once, and what is left is what its user was given and not charged                         |
| S5   | what a client was told is true in the end, and is about what was asked for                |
| S6   | only what must be is refused, for its reason; and what was refused made nothing           |
| S7   | what was repeated was answered alike, and versions never fell                             |
| S8   | nothing was made, canceled or deleted that nobody asked for                               |
| S9   | what was acknowledged is in the inbox; what is there was sent and signed by the provider, |
|      | and has arrived, unless nobody can read it                                                |
| S10  | no process ended by itself, and nobody was told of a defect                               |
| S11  | the run came to its end, did all that was planned, and left all of its evidence           |
| S12  | the provider has nothing against us                                                       |
"""

from tests.chaos.evidence import Row
from tests.chaos.judge import Finding, judge
from tests.chaos.stack.answers import find_contradictions, find_false_answers, find_unasked
from tests.chaos.stack.course import find_defects, find_missing_evidence, find_open_ends
from tests.chaos.stack.deliveries import find_lost_webhooks
from tests.chaos.stack.exhibits import Exhibits, Proofs
from tests.chaos.stack.money import find_wrong_balances, find_wrong_reservations
from tests.chaos.stack.refusals import find_refused_that_are_there, find_wrong_refusals

UNUSED = frozenset({1, 4})
"""The provider's rules about what is not used: what it costs, and that it is canceled."""


def judge_all(exhibits: Exhibits) -> list[Finding]:
    """Returns what a run did wrong; nothing if it was good."""
    found = list(judge(exhibits.evidence))
    for rule in (
        _completed, _refunded, _costs, find_wrong_balances, find_wrong_reservations,
        find_false_answers, find_wrong_refusals, find_refused_that_are_there,
        find_contradictions, find_unasked, find_lost_webhooks, find_defects, find_open_ends,
        find_missing_evidence, _provider,
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
        is_refunded = booked is not None and booked["state"] == "REFUNDED"
        if row["stage"] in ("FAILED", "CANCELED") and not is_refunded:
            yield "S2", generation_id, f"{row['stage']}, and its credits are {_state(booked)}"
        if row["refund_percent"] not in (None, 100):
            # By the settings of the run, a cancel gives back everything.
            yield "S2", generation_id, f"its cancel gives back {row['refund_percent']} percent"
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
