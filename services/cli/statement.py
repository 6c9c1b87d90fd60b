"""Checks a statement: whether its transactions lead to its balance."""

from collections.abc import Sequence

from services.client.credits import Balance, Transaction

__all__ = ["find_faults", "moved_by", "net_credits"]


def find_faults(transactions: Sequence[Transaction], balance: Balance) -> list[str]:
    """Returns what does not add up in a whole record, oldest first; nothing if all is right.

    Everything is computed again from the movements alone.
    """
    faults = []
    available = reserved = 0
    for place, transaction in enumerate(transactions, start=1):
        name = f"transaction {transaction.version} ({transaction.type})"
        available += transaction.credits
        reserved += transaction.reserved_change
        if transaction.version != place:
            faults.append(f"{name} stands at place {place}")
        if transaction.available_after != available:
            faults.append(f"{name} says {transaction.available_after} available, not {available}")
        if transaction.reserved_after != reserved:
            faults.append(f"{name} says {transaction.reserved_after} reserved, not {reserved}")
        if available < 0 or reserved < 0:
            faults.append(f"{name} leads below zero")
    for what, said, computed in (
        ("available", balance.available_credits, available),
        ("reserved", balance.reserved_credits, reserved),
        ("version", balance.version, len(transactions)),
    ):
        if said != computed:
            faults.append(f"the balance says {what} {said}, its transactions lead to {computed}")
    return faults


def moved_by(transactions: Sequence[Transaction], generation_id: str) -> list[Transaction]:
    """Returns the transactions of one generation, in their order."""
    return [t for t in transactions if t.reservation_id == generation_id]


def net_credits(transactions: Sequence[Transaction]) -> int:
    """Returns what transactions did to the user's credits, available and reserved together."""
    return sum(t.credits + t.reserved_change for t in transactions)
