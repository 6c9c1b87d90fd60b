"""Turns the keys that callers choose into ids of generations, the same at every replica."""

import asyncio
import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Request

from services.client.generations import Generation, GenerationClient, new_generation_id
from services.runtime.errors import NotFound, ServiceError
from services.web.callers import SignedIn
from services.web.problems import FieldProblem, Refused, Repeatable, invalid

__all__ = [
    "HEADER",
    "PARAMETER",
    "REPLAYED",
    "Key",
    "WantedKey",
    "find_earlier",
    "is_repetition",
    "key_of",
    "keyed_id",
]

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
CHARACTERS_MAX = 255
LOOK_S_MAX = 0.5
RULE = f"must be given once and be 1 to {CHARACTERS_MAX} visible ASCII characters"

_KEY = re.compile(rf"[!-~]{{1,{CHARACTERS_MAX}}}", re.ASCII)
_VERSION_BITS = 0xF << 76, 0x8 << 76
_VARIANT_BITS = 0x3 << 62, 0x2 << 62

PARAMETER: Mapping[str, Any] = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": (
        "Makes the call repeatable: as often as it is made with the same key, there is one "
        "generation and one charge, for ever. A repetition is answered with that generation as it "
        "is now, and mostly `Idempotency-Replayed: true`; with other fields it is refused (409). "
        "Choose a new one, such as a UUID, for each video that is wanted: what was refused for "
        "want of credits (402) stays so under its key. Repetitions count to the rate of creates. "
        "Without a key, list your generations before you repeat what was answered with 503 or 504."
    ),
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": CHARACTERS_MAX,
        "pattern": "^[!-~]+$",
    },
}
"""The header, as the contract of a route tells of it."""


@dataclass(frozen=True, slots=True)
class Key:
    """What a call that spends is known by."""

    generation_id: str
    """The id of the generation that it makes."""
    is_chosen: bool
    """Whether the caller can repeat it; web itself repeats each call by the same id."""


async def key_of(request: Request, caller: SignedIn) -> Key:
    """Returns the key of a request; raises Refused for a header that is none."""
    given = request.headers.getlist(HEADER)
    # What is said of a failure depends on it.
    request.state.repeatable = Repeatable.BY_KEY if given else Repeatable.NOT
    if not given:
        return Key(new_generation_id(), is_chosen=False)
    if len(given) > 1 or not _KEY.fullmatch(given[0]):
        raise Refused(invalid(FieldProblem(f"/{HEADER}", RULE)))
    return Key(keyed_id(caller.user_id, given[0]), is_chosen=True)


WantedKey = Annotated[Key, Depends(key_of)]
"""The key, for a handler."""


def keyed_id(user_id: str, key: str) -> str:
    """Returns the id that a user's key stands for: a UUID of version 8, made of a SHA-256.

    No user can meet another's: the id of a user has no zero byte, so that no two pairs of user and
    key are written alike.
    """
    digest = sha256(f"{user_id}\0{key}".encode()).digest()
    number = int.from_bytes(digest[:16], "big")
    for mask, bits in (_VERSION_BITS, _VARIANT_BITS):
        number = number & ~mask | bits
    return str(UUID(int=number))


async def find_earlier(client: GenerationClient, user_id: str, key: Key) -> Generation | None:
    """Returns the generation that an earlier call with the same key has made, None if none has."""
    if not key.is_chosen:
        return None
    try:
        return await client.get(user_id, key.generation_id)
    except NotFound:
        return None


async def is_repetition(client: GenerationClient, user_id: str, key: Key) -> bool:
    """Tells whether an earlier call with the same key surely has made a generation.

    What create answers does not tell the first call from a repetition. Nothing but a header depends
    on this, so it never keeps a create from being tried: what cannot be found out soon is not sure.
    """
    with contextlib.suppress(ServiceError, TimeoutError):
        async with asyncio.timeout(LOOK_S_MAX):
            return await find_earlier(client, user_id, key) is not None
    return False
