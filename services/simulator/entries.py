"""What the journal holds: requests that came in, and what each create asked for; pure."""

from dataclasses import dataclass
from typing import Any

__all__ = ["Asked", "Entry", "loaded_entry"]

JUDGED_HEADERS = frozenset({"authorization", "cancel-after", "prefer"})


@dataclass(frozen=True, slots=True)
class Asked:
    """What a create asked for, also if nothing came of it."""

    group: str
    """What the customer works on; empty if nothing tells."""
    seed: int | None
    """The explicit seed of the input."""
    webhook: str | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One request and its answer; times are seconds since the epoch, by the machine's clock."""

    number: int
    """1, 2, 3 … in the order in which they were answered."""
    begun_at: float
    """When its headers had been read."""
    at: float
    """When it was answered."""
    jumped_s: float
    """By how much the provider's clock was ahead of the machine's when it began."""
    listener: str
    method: str
    path: str
    """Path and query, as they came."""
    headers: tuple[tuple[str, str], ...]
    """Every header line; the token is masked."""
    status: int | None
    """None if the connection ended before an answer."""
    content_type: str | None
    """Of the answer."""
    retry_after_s: float | None
    """What a 429 said, in its header or its body, about when to come again."""
    account: str | None
    """Key of the account whose token or file it was."""
    generation: str | None
    """The customer's own name for its work: `g` in the query of the webhook address."""
    prediction: str | None
    """Which one was created, read, canceled or fetched."""
    fault: str | None
    """Kind of the fault that spoiled the answer."""
    asked: Asked | None = None
    """Of a create."""

    @property
    def route(self) -> str:
        """Returns the path without its query."""
        return self.path.partition("?")[0]

    @property
    def is_create(self) -> bool:
        """Returns whether it was to make a prediction."""
        of_api = self.listener == "api" and self.method == "POST"
        return of_api and self.route.endswith("/predictions")

    @property
    def shows_token(self) -> bool:
        """Returns whether it carried a token."""
        return self.header("authorization") is not None

    def header(self, name: str) -> str | None:
        """Returns the first value of a header."""
        lower = name.lower()
        return next((value for key, value in self.headers if key.lower() == lower), None)


def loaded_entry(document: dict[str, Any]) -> Entry:
    """Returns the entry that a stored document describes, with no headers but those of interest.

    A judge takes all entries at once, and headers are most of what they are made of.
    """
    asked = document["asked"]
    headers = tuple(
        (name, value) for name, value in document["headers"] if name.lower() in JUDGED_HEADERS
    )
    values = {**document, "headers": headers, "asked": None if asked is None else Asked(**asked)}
    return Entry(**values)
