"""Runs of the whole stack in which all was well; each test spoils something of one."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tests.chaos.good_run import GOOD as GOOD_GENERATION
from tests.chaos.good_run import JOB, KEY, MADE, PATH, G, at, generation, moves
from tests.chaos.stack.exhibits import Exhibits
from tests.chaos.stack.plan import Kind
from tests.chaos.stack.rules import judge_all

USER = "ada"
PRICE = 10
BOOKED = dict(GOOD_GENERATION.predictions[0])


def row(**changes: Any) -> dict[str, Any]:
    return generation(
        output_sha256="5a", deleted_at=None, erased_at=None, erase_at=None, version=7,
        kind="TEXT_TO_VIDEO", model="t2v-14B", resolution="480p", prompt="a fox", retry_of=None,
    ) | changes  # fmt: skip


def answer(**changes: Any) -> dict[str, Any]:
    return {
        "generation_id": G, "user_id": USER, "status": "COMPLETED", "stage": "COMPLETED",
        "version": 7, "kind": "TEXT_TO_VIDEO", "model": "t2v-14B", "resolution": "480p",
        "prompt": "a fox", "cost_credits": PRICE, "charged_credits": PRICE,
        "created_at": "2026-11-21T12:00:00+00:00", "retry_of": "", "job_id": JOB,
    } | changes  # fmt: skip


def told(call: str = "create", outcome: str = "ok", **changes: Any) -> dict[str, Any]:
    line: dict[str, Any] = {
        "kind": "told", "user_id": USER, "errand": 1, "call": call, "outcome": outcome,
        "generation_id": G,
    }  # fmt: skip
    if outcome == "ok":
        line["answer"] = answer()
    else:
        line |= {"reason": "INVALID_FIELD", "message": "prompt must be set", "status": ""}
    return line | changes


def balance(available: int = 90, reserved: int = 0) -> dict[str, Any]:
    has = {"available_credits": available, "reserved_credits": reserved, "version": 3}
    line = told("balance", answer=has)
    del line["generation_id"]
    return line


def reservation(state: str = "COMMITTED", **changes: Any) -> dict[tuple[str, str], Any]:
    committed = PRICE if state == "COMMITTED" else 0
    booked = {"state": state, "credits": PRICE, "committed": committed, "reimbursed": 0}
    return {(USER, G): booked | changes}


def transaction(kind: str, available: int, reserved: int, of: str | None = G) -> dict[str, Any]:
    return {
        "user_id": USER, "type": kind, "available_delta": available, "reserved_delta": reserved,
        "reservation_id": of,
    }  # fmt: skip


GIVEN = transaction("BONUS", 100, 0, None)
RESERVED = transaction("RESERVATION", -PRICE, PRICE)
DEDUCTED = transaction("DEDUCTION", 0, -PRICE)
RETURNED = transaction("REFUND", PRICE, -PRICE)
EVENT = {"webhook_id": "msg_1", "body_sha256": "aa", "generation_id": G, "attempt": 1}
STORED = EVENT | {"state": "DELIVERED", "disposition": "APPLIED", "drop_reason": None}
SENT = {
    "webhook_id": "msg_1", "status": 200, "event": "completed", "job_id": JOB, "failure": None,
    "fault": None,
}  # fmt: skip
OVER = {"kind": "over"}
WAS_GIVEN = {"kind": "given", "user_id": USER, "credits": 100}


def planning(kind: Kind = Kind.PLAIN, *troubles: str) -> dict[str, Any]:
    errand = {
        "number": 1, "kind": kind.value, "user": USER, "generation_id": G, "other_id": "g2",
        "model": "t2v-14B", "resolution": "480p", "prompt": "a fox",
    }  # fmt: skip
    made = [{"what": what} for what in troubles]
    return {"kind": "plan", "plan": {"errands": [errand], "troubles": made}}


def noting(*lines: dict[str, Any], kind: Kind = Kind.PLAIN) -> list[dict[str, Any]]:
    return [planning(kind), WAS_GIVEN, *lines, OVER]


GOOD = Exhibits(
    evidence=replace(GOOD_GENERATION, generations={G: row()}),
    accounts={USER: {"available": 90, "reserved": 0, "version": 3}},
    reservations=reservation(),
    transactions=[GIVEN, RESERVED, DEDUCTED],
    inbox=[STORED],
    events=[EVENT],
    webhooks=[SENT],
    told=[told(), balance()],
    noted=noting(),
    titles={KEY: JOB},
    digests={KEY: "5a"},
)


def with_row(**changes: Any) -> Exhibits:
    return replace(GOOD, evidence=replace(GOOD.evidence, generations={G: row(**changes)}))


def with_evidence(exhibits: Exhibits = GOOD, **changes: Any) -> Exhibits:
    return replace(exhibits, evidence=replace(exhibits.evidence, **changes))


def with_told(*lines: dict[str, Any], kind: Kind = Kind.PLAIN) -> Exhibits:
    """A good run in which people were told these, and of their balance."""
    return replace(GOOD, told=[*lines, balance()], noted=noting(kind=kind))


ENDED_BADLY = replace(
    with_evidence(
        with_row(stage="FAILED", charged_credits=0, output_key=None),
        made=[replace(MADE, status="failed", is_charged=False)],
        predictions=[BOOKED | {"status": "failed"}],
        transitions=moves(
            *PATH[:3], "RUNNING PredictionSeen REFUNDING", "REFUNDING Refunded FAILED"
        ),
        reservations={G: ("REFUNDED", 0)},
    ),
    accounts={USER: {"available": 100, "reserved": 0, "version": 3}},
    reservations=reservation("REFUNDED"),
    transactions=[GIVEN, RESERVED, RETURNED],
    noted=noting(kind=Kind.FAILING),
    told=[
        told(answer=answer(status="FAILED", stage="FAILED", charged_credits=0)),
        balance(100),
    ],
)
"""It failed, and all is well."""
REFUSED = replace(
    GOOD,
    evidence=replace(
        GOOD.evidence, generations={}, attempts=[], predictions=[], transitions=[], made=[],
        calls=[], reservations={}, file_sizes={},
    ),
    accounts={USER: {"available": 100, "reserved": 0, "version": 1}},
    reservations={}, transactions=[GIVEN], inbox=[], events=[], webhooks=[],
    noted=noting(kind=Kind.BAD),
    told=[told(outcome="refused", changes={"prompt": ""}), balance(100)],
)  # fmt: skip
"""It was refused, and nothing is there."""
DELETED = replace(
    with_evidence(with_row(deleted_at=at(5), erased_at=at(6)), file_sizes={}),
    told=[told(), told("delete", answer={"deleted_ids": [G]}), balance()],
)
OUTRUN = replace(
    with_evidence(
        transitions=moves(
            *PATH[:3], "RUNNING CancelRequested CANCELING", "CANCELING PredictionSeen ARCHIVING",
            *PATH[4:],
        )
    ),
    told=[
        told(answer=answer(status="PROCESSING", stage="RUNNING", version=4)),
        told("cancel", answer=answer(status="PROCESSING", stage="CANCELING", version=5)),
        balance(),
    ],
)  # fmt: skip
"""A cancel was accepted, and the provider was faster."""


def against(rule: int, *predictions: str) -> dict[str, Any]:
    return {"rule": rule, "group": G, "proof": "a proof", "predictions": list(predictions)}


LOST = with_evidence(
    replace(ENDED_BADLY, provider_violations=[against(1, JOB)]),
    made=[MADE],
    predictions=[BOOKED | {"role": "ORPHAN", "first_seen_at": at(3)}],
    generations={G: dict(ENDED_BADLY.evidence.generations[G]) | {"job_id": None}},
)
"""It was paid at the provider, and nobody learned of it before it was over."""

WELL: Mapping[str, Exhibits] = {
    "completed": GOOD, "failed": ENDED_BADLY, "refused": REFUSED, "deleted": DELETED,
    "outrun": OUTRUN, "lost": LOST,
}  # fmt: skip


def proofs(rule: str, exhibits: Exhibits) -> str:
    """Returns in words what the judge finds against a rule."""
    return "\n".join(one.proof for one in judge_all(exhibits) if one.rule == rule)
