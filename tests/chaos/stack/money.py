"""Says what of the credits of a run does not add up: S4, of each account and each reservation."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from tests.chaos.evidence import Row
from tests.chaos.stack.exhibits import Exhibits, Proofs

SETTLEMENTS = {"COMMITTED": "DEDUCTION", "REFUNDED": "REFUND", "EXPIRED": "EXPIRY"}
"""The transaction that leads a reservation to its state."""


def find_wrong_balances(exhibits: Exhibits) -> Proofs:
    """Every balance is the sum of its transactions, and of what was given, charged, set aside."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    given: Counter[str] = Counter()
    for line in exhibits.noted:
        if line["kind"] == "given":
            given[line["user_id"]] += line["credits"]
    for one in exhibits.transactions:
        sums[one["user_id"]][0] += one["available_delta"]
        sums[one["user_id"]][1] += one["reserved_delta"]
        sums[one["user_id"]][2] += 1
    charged: Counter[str] = Counter()
    for row in exhibits.evidence.generations.values():
        charged[row["user_id"]] += row["charged_credits"]
    set_aside: Counter[str] = Counter()
    for (user, _), booked in exhibits.reservations.items():
        if booked["state"] == "RESERVED":
            set_aside[user] += booked["credits"]
    for user in sorted({*sums, *given, *charged} - set(exhibits.accounts)):
        yield "S4", "", f"{user} has no account, and credits of {user} were moved"
    for user, account in exhibits.accounts.items():
        available, reserved = account["available"], account["reserved"]
        has = [available, reserved, account["version"]]
        if has != sums[user]:
            yield "S4", "", f"{user} has {has}, and the transactions say {sums[user]}"
        if available + reserved != given[user] - charged[user]:
            proof = (
                f"{user} was given {given[user]} and charged {charged[user]}, "
                f"and has {available} and {reserved} reserved"
            )
            yield "S4", "", proof
        if reserved != set_aside[user]:
            proof = (
                f"{user} has {reserved} reserved, and reservations of {set_aside[user]} are open"
            )
            yield "S4", "", proof


def find_wrong_reservations(exhibits: Exhibits) -> Proofs:
    """Every reservation is set aside once and settled once, and its transactions leave no rest."""
    moves: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for one in exhibits.transactions:
        if one["reservation_id"] is not None:
            moves[one["user_id"], one["reservation_id"]].append(one)
    for key in moves.keys() - exhibits.reservations.keys():
        yield "S4", key[1], f"credits of {key[0]} were moved for a reservation that is not there"
    for key, booked in exhibits.reservations.items():
        for proof in _wrong_moves(booked, moves[key]):
            yield "S4", key[1], proof


def _wrong_moves(booked: Row, moves: Sequence[Row]) -> list[str]:
    """Returns what of a reservation's transactions does not lead to what it is."""
    state = booked["state"]
    kinds = Counter(one["type"] for one in moves)
    wanted = _kinds_of(state)
    # What was given back of what was spent comes besides, and is booked as such.
    reimbursements = kinds.pop("REIMBURSEMENT", 0)
    found = []
    if kinds != wanted or (reimbursements and state != "COMMITTED"):
        told = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())) or "nothing"
        found.append(f"it is {state}, and its transactions are {told}")
    has = [sum(one[name] for one in moves) for name in ("available_delta", "reserved_delta")]
    is_open = state == "RESERVED"
    left = booked["credits"] if is_open else 0
    spent = left if is_open else booked["committed"] - booked["reimbursed"]
    if has != [-spent, left]:
        found.append(f"it is {state}, and its transactions sum up to {has}, not {[-spent, left]}")
    set_aside = [one["reserved_delta"] for one in moves if one["type"] == "RESERVATION"]
    if wanted and set_aside and set(set_aside) != {booked["credits"]}:
        found.append(f"it is of {booked['credits']} credits, and {set_aside} were set aside")
    return found


def _kinds_of(state: str) -> Mapping[str, int]:
    if state == "REJECTED":
        return {}
    kinds = {"RESERVATION": 1}
    return kinds if state == "RESERVED" else kinds | {SETTLEMENTS[state]: 1}
