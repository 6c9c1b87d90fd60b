"""Says what a run did wrong, by what is known about it; nothing here looks at anything itself.

| rule | what must be so                                                                          |
|------|------------------------------------------------------------------------------------------|
| J1   | one prediction at a time for a generation; all others are booked, and canceled or failed |
| J2   | who got a video paid its price, and who got none, or canceled it, paid nothing           |
| J3   | everything ends in time                                                                  |
| J4   | the limits of creates were kept, by our books and by the provider's, and so were the     |
|      | pauses that it asked for                                                                 |
| J5   | nothing runs at the provider in the end                                                  |
| J6   | what has not ended comes due, and nothing else                                           |
| J7   | a create is sent once, in its time, and again only when the first certainly made nothing |
| J8   | the token was shown to nobody who did not ask for it                                     |
| J9   | every change of a stage is one of the saga's, and follows from the one before            |
| J10  | the ledger proves its sums                                                               |
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from tests.chaos.evidence import Call, Evidence, Made, Row
from tests.chaos.saga_table import ENDS, ENTRY, MOVES

REFUSALS = frozenset({400, 401, 402, 403, 404, 405, 413, 415, 422, 429})
"""Answers after which nothing was created."""
SEND_SLACK = timedelta(seconds=3)
"""How much later than it was sent a create may be noticed, on a machine with much to do."""


@dataclass(frozen=True)
class Finding:
    """Something that must not be."""

    rule: str
    generation_id: str
    proof: str
    """What shows it."""

    def __str__(self) -> str:
        return f"{self.rule} {self.generation_id}: {self.proof}"


def judge(evidence: Evidence) -> list[Finding]:
    """Returns what a run did wrong; nothing if it was good."""
    history = _History(evidence)
    found: list[Finding] = []
    for generation_id, row in evidence.generations.items():
        for rule in (_one_prediction, _right_charge, _in_time, _due, _creates, _stages):
            found += [
                Finding(name, generation_id, proof)
                for name, proof in rule(history, generation_id, row)
            ]
    found += [Finding("J4", "", proof) for proof in _limits(evidence)]
    found += [
        Finding("J5", one.generation_id, f"{one.job_id} is {one.status} in the end")
        for one in evidence.made
        if one.is_live
    ]
    found += [
        Finding("J8", call.generation_id or "", f"{call.method} {call.path} carried the token")
        for call in evidence.calls
        if call.listener != "api" and call.has_token and not _was_asked(evidence, call)
    ]
    found += [Finding("J10", "", violation) for violation in evidence.ledger_violations]
    return found


Proofs = Iterator[tuple[str, str]]


class _History:
    """The evidence by generation."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.attempts: dict[str, list[Row]] = defaultdict(list)
        self.booked: dict[str, dict[str, Row]] = defaultdict(dict)
        self.transitions: dict[str, list[Row]] = defaultdict(list)
        self.made: dict[str, list[Made]] = defaultdict(list)
        self.creates: dict[str, list[Call]] = defaultdict(list)
        for attempt in evidence.attempts:
            self.attempts[attempt["generation_id"]].append(attempt)
        for booked in evidence.predictions:
            self.booked[booked["generation_id"]][booked["job_id"]] = booked
        for transition in evidence.transitions:
            self.transitions[transition["generation_id"]].append(transition)
        for made in sorted(evidence.made, key=lambda one: (one.attempt, one.created_at)):
            self.made[made.generation_id].append(made)
        for call in sorted(evidence.calls, key=lambda call: call.begun_at):
            if call.is_create and call.generation_id is not None:
                self.creates[call.generation_id].append(call)

    def visible_at(self, generation_id: str, attempt: int) -> datetime:
        """When the provider must show what an attempt made, if it made anything.

        Never, if the attempt is recorded nowhere.
        """
        limits = self.evidence.limits
        wait = timedelta(seconds=limits.provider_call_s + limits.search_grace_s)
        for row in self.attempts[generation_id]:
            if row["attempt"] == attempt:
                send_before: datetime = row["send_before"]
                return send_before + wait
        return datetime.max.replace(tzinfo=UTC)


def _one_prediction(history: _History, generation_id: str, row: Row) -> Proofs:
    booked = history.booked[generation_id]
    adopted = [job_id for job_id, one in booked.items() if one["role"] == "ADOPTED"]
    if len(adopted) > 1 or (row["job_id"] is not None and adopted != [row["job_id"]]):
        gave_up = booked.get(row["job_id"] or "", {}).get("role") == "ORPHAN"
        if adopted or not gave_up:
            yield "J1", f"it uses {row['job_id']}, and {adopted} are booked as adopted"
    made = history.made[generation_id]
    for number, earlier in enumerate(made):
        for later in made[number + 1 :]:
            over = earlier.status == "failed" and (earlier.ended_at or later.created_at)
            came_late = earlier.created_at > history.visible_at(generation_id, earlier.attempt)
            if not came_late and not (over and over <= later.created_at):
                yield "J1", f"{later.job_id} was made while {earlier.job_id} was {earlier.status}"
    for one in made:
        if one.job_id not in booked:
            yield "J1", f"{one.job_id} was made and is booked nowhere"
        else:
            yield from _booked_well(history, one, booked[one.job_id])


def _booked_well(history: _History, made: Made, booked: Row) -> Proofs:
    if booked["ended_at"] is None or booked["status"] != made.status:
        yield "J1", f"{made.job_id} is booked as {booked['status']} and is {made.status}"
    if booked["role"] == "SUPERSEDED" and made.status != "failed":
        yield "J1", f"{made.job_id} was given up for another, and is {made.status}"
    if booked["role"] == "ORPHAN":
        was_over = made.ended_at is not None and made.ended_at <= booked["first_seen_at"]
        calls = history.evidence.calls
        if not was_over and not any(call.is_cancel_of(made.job_id) for call in calls):
            yield "J1", f"nobody uses {made.job_id}, and nobody canceled it"


def _right_charge(history: _History, generation_id: str, row: Row) -> Proofs:
    evidence = history.evidence
    state, committed = evidence.reservations.get(generation_id, ("NONE", 0))
    if row["charged_credits"] != committed:
        yield "J2", f"it says {row['charged_credits']} charged, credits {committed}"
    match row["stage"]:
        case "COMPLETED":
            used = [one for one in history.made[generation_id] if one.job_id == row["job_id"]]
            if (state, committed) != ("COMMITTED", row["price_credits"]):
                yield "J2", f"COMPLETED, and {committed} credits are {state}"
            if [one.status for one in used] != ["succeeded"]:
                yield "J2", f"COMPLETED by {used}"
            size_bytes = evidence.file_sizes.get(row["output_key"])
            if row.get("deleted_at") is None and size_bytes != row["output_size_bytes"]:
                yield "J2", f"COMPLETED, and {row['output_key']} is not stored"
        case "FAILED" if state != "REFUNDED":
            yield "J2", f"FAILED, and its credits are {state}"
        case "CANCELED":
            # By the settings of a run, a cancel gives back everything.
            if state != "REFUNDED" or row["refund_percent"] != 100:
                told = f"{row['refund_percent']} percent of them go back"
                yield "J2", f"CANCELED, and its credits are {state}; {told}"
        case "REJECTED" if state not in ("REJECTED", "NONE"):
            yield "J2", f"REJECTED, and its credits are {state}"
        case _:
            pass


def _in_time(history: _History, _generation_id: str, row: Row) -> Proofs:
    latest = row["deadline_at"] + timedelta(seconds=history.evidence.limits.ended_within_s)
    at = row["finished_at"] or history.evidence.read_at
    if row["stage"] != "PARKED" and at > latest:
        yield "J3", f"{row['stage']} at {at}, and its deadline was {row['deadline_at']}"


def _due(_history: _History, _generation_id: str, row: Row) -> Proofs:
    if (row["due_at"] is None) != (row["stage"] in ENDS or row["stage"] == "PARKED"):
        yield "J6", f"{row['stage']} is due at {row['due_at']}"


def _creates(history: _History, generation_id: str, _row: Row) -> Proofs:
    attempts, calls = history.attempts[generation_id], history.creates[generation_id]
    made = {one.job_id: one for one in history.made[generation_id]}
    if len(calls) > len(attempts):
        yield "J7", f"{len(calls)} creates for {len(attempts)} attempts"
    recorded = {row["attempt"] for row in attempts}
    for one in made.values():
        if one.attempt not in recorded:
            yield "J7", f"{one.job_id} was made by attempt {one.attempt}, which is no attempt"
    sent: list[tuple[Call, int]] = []
    for call in calls:
        number = _attempt_of(call, attempts, made)
        if number is None:
            yield "J7", f"a create at {call.begun_at}, when no attempt could be sent"
        else:
            sent.append((call, number))
    for (earlier, attempt), (later, _) in pairwise(sent):
        came = [one for one in made.values() if one.attempt == attempt]
        visible_at = history.visible_at(generation_id, attempt)
        if came:
            failed_at = [one.ended_at for one in came if one.status == "failed"]
            certain = any(at is not None and at <= later.begun_at for at in failed_at)
            certain = certain or came[0].created_at > visible_at
        else:
            certain = earlier.status in REFUSALS
        if not certain and later.begun_at < visible_at:
            yield "J7", f"a create at {later.begun_at}, the one before open until {visible_at}"


def _attempt_of(call: Call, attempts: Sequence[Row], made: dict[str, Made]) -> int | None:
    """Returns the attempt that a create was sent for; None if none could be sent then."""
    told = made[call.job_id].attempt if call.job_id in made else None
    for row in reversed(attempts):
        is_it = row["attempt"] == told if told else row["created_at"] <= call.begun_at
        if is_it:
            in_time = call.begun_at <= row["send_before"] + SEND_SLACK
            number: int = row["attempt"]
            return number if in_time else None
    return None


def _stages(history: _History, generation_id: str, row: Row) -> Proofs:
    stage, resubmissions = ENTRY, 0
    for move in sorted(history.transitions[generation_id], key=lambda move: int(move["fence"])):
        told = f"{move['from_stage']} to {move['to_stage']} by {move['event']}"
        if move["from_stage"] != stage:
            yield "J9", f"{told}, when it was {stage}"
        if (move["from_stage"], move["event"], move["to_stage"]) not in MOVES:
            yield "J9", f"{told} is no move of the saga"
        resubmissions += move["to_stage"] == "READY" and move["event"] not in (
            "Reserved", "SubmitDeferred", "Resumed",
        )  # fmt: skip
        stage = move["to_stage"]
    if row["stage"] != stage:
        yield "J9", f"it is {row['stage']}, and its last move led to {stage}"
    if resubmissions != row["resubmissions"] or resubmissions > 1:
        yield "J9", f"it went back {resubmissions} times, and says {row['resubmissions']}"


def _limits(evidence: Evidence) -> Iterator[str]:
    limits, burst = evidence.limits, evidence.limits.creates_burst
    claimed = sorted(row["created_at"] for row in evidence.attempts)
    # By the provider's clock too. What was claimed at different moments may arrive in one, so there
    # may be a burst more of it.
    came = sorted(call.begun_at for call in evidence.calls if call.is_create)
    for moments, allowed, under_way in (
        (claimed, burst, limits.in_flight_max),
        (came, 2 * burst, limits.in_flight_max + burst),
    ):
        at = _first_beyond(moments, allowed, limits.creates_per_s)
        if at is not None:
            yield f"more creates until {at} than {allowed} and {limits.creates_per_s:g} a second"
        for at in moments:
            live = [one for one in evidence.made if one.created_at < at and not _over(one, at)]
            if len(live) > under_way:
                yield f"a create at {at}, with {len(live)} predictions under way"
    pause = timedelta(seconds=limits.retry_after_s)
    throttled = [call for call in evidence.calls if call.is_create and call.status == 429]
    for row in evidence.attempts:
        if row["http_status"] != 429 or row["settled_at"] is None:
            continue
        answers = [c.at for c in throttled if c.generation_id == row["generation_id"]]
        until = max((at for at in answers if at <= row["settled_at"]), default=None)
        for at in claimed:
            if until is not None and row["settled_at"] < at < until + pause:
                yield f"a create at {at}, in a pause until {until + pause}"


def _first_beyond(moments: Sequence[datetime], burst: int, per_s: float) -> datetime | None:
    """Returns the first of the moments that is one too many for a bucket of tokens."""
    tokens, before = float(burst), None
    for at in moments:
        refill = 0.0 if before is None else per_s * (at - before).total_seconds()
        tokens, before = min(tokens + refill, float(burst)) - 1, at
        if tokens < -0.001:
            return at
    return None


def _over(made: Made, at: datetime) -> bool:
    return made.ended_at is not None and made.ended_at <= at


def _was_asked(evidence: Evidence, call: Call) -> bool:
    return any(
        before.path == call.path and before.status in (401, 403) and before.at <= call.begun_at
        for before in evidence.calls
    )
