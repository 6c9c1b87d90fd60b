"""Knows whose token a request carries."""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.simulator.signature import make_secret

__all__ = ["Account", "Accounts", "account_key", "masked"]

SCHEMES = ("bearer", "token")
RETIRED_MAX = 10
"""How many retired secrets may sign beside the present one."""


@dataclass(frozen=True, slots=True)
class Account:
    """One customer of the stand-in."""

    key: str
    """Names the account wherever the token itself must not stand."""
    token: str

    @property
    def username(self) -> str:
        """Returns the name by which the API introduces the account."""
        return f"simulated-{self.key[:6]}"


class Accounts:
    """All accounts, one for each token."""

    def __init__(self, tokens: Sequence[str], seed: int) -> None:
        self._seed = seed
        self._by_token = {token: Account(account_key(token), token) for token in tokens}
        self._by_key = {account.key: account for account in self._by_token.values()}
        self.reset()

    def __iter__(self) -> Iterator[Account]:
        return iter(self._by_token.values())

    def authenticate(self, authorization: str | None) -> Account | None:
        """Returns the account of an `Authorization` header, or None."""
        scheme, _, token = (authorization or "").partition(" ")
        return self._by_token.get(token.strip()) if scheme.lower() in SCHEMES else None

    def secrets(self, account: Account, now: float) -> tuple[str, ...]:
        """Returns the secrets that sign an account's webhooks at `now`, newest first."""
        return (
            make_secret(self._seed, account.token, self._rotations),
            *(
                make_secret(self._seed, account.token, number)
                for number, ends_at in reversed(self._retired)
                if ends_at > now
            ),
        )

    def rotate(self, retires_at: float) -> None:
        """Gives each account a new secret; the present one goes on signing until `retires_at`."""
        self._retired.append((self._rotations, retires_at))
        self._rotations += 1

    def reset(self) -> None:
        """Gives each account back the secret of the start."""
        self._rotations = 0
        self._retired: deque[tuple[int, float]] = deque(maxlen=RETIRED_MAX)

    def find(self, key: str) -> Account | None:
        """Returns the account named `key`; None if its token is not given any more."""
        return self._by_key.get(key)


def account_key(token: str) -> str:
    """Returns the name of the account of `token`."""
    return hashlib.sha256(token.encode()).hexdigest()[:12]


def masked(authorization: str) -> str:
    """Returns an `Authorization` header of which only scheme and last characters are left."""
    scheme, _, token = authorization.partition(" ")
    return f"{scheme} …{token[-4:]}" if token else "…"
