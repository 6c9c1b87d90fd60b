"""Knows whose token a request carries."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.simulator.signature import make_secret

__all__ = ["Account", "Accounts", "masked"]

SCHEMES = ("bearer", "token")


@dataclass(frozen=True, slots=True)
class Account:
    """One customer of the stand-in."""

    key: str
    """Names the account wherever the token itself must not stand."""
    token: str
    secret: str
    """Signing secret of its webhooks, `whsec_…`."""

    @property
    def username(self) -> str:
        """Returns the name by which the API introduces the account."""
        return f"simulated-{self.key[:6]}"


class Accounts:
    """All accounts, one for each token."""

    def __init__(self, tokens: Sequence[str], seed: int) -> None:
        self._by_token = {
            token: Account(
                hashlib.sha256(token.encode()).hexdigest()[:12], token, make_secret(seed, token)
            )
            for token in tokens
        }
        self._by_key = {account.key: account for account in self._by_token.values()}

    def __iter__(self) -> Iterator[Account]:
        return iter(self._by_token.values())

    def authenticate(self, authorization: str | None) -> Account | None:
        """Returns the account of an `Authorization` header, or None."""
        scheme, _, token = (authorization or "").partition(" ")
        return self._by_token.get(token.strip()) if scheme.lower() in SCHEMES else None

    def find(self, key: str) -> Account | None:
        """Returns the account named `key`; None if its token is not given any more."""
        return self._by_key.get(key)


def masked(authorization: str) -> str:
    """Returns an `Authorization` header of which only scheme and last characters are left."""
    scheme, _, token = authorization.partition(" ")
    return f"{scheme} …{token[-4:]}" if token else "…"
