"""Carries faults out at an attempt to deliver a webhook; pure."""

import base64
import gzip
import json
import re
from dataclasses import dataclass, replace
from typing import assert_never

from services.simulator.faults.webhook_actions import (
    AimAtOtherGeneration,
    AttemptAction,
    BadSignature,
    CarryingAction,
    Chunked,
    DuplicateHeader,
    FractionalTimestamp,
    FutureTimestamp,
    GarbageTokenFirst,
    Gzip,
    HugeLogs,
    MissingHeader,
    NotJson,
    OtherEnvironment,
    SigningAction,
    SlowBody,
    StaleTimestamp,
    TamperBody,
    TamperQuery,
    TwoSignatures,
    V2Only,
    WrongMethod,
    WrongSecret,
)
from services.simulator.signature import make_secret, signature_headers

__all__ = ["Letter", "Outgoing", "outgoing"]

NOBODYS_SECRET = make_secret(0, "nobody")
NO_SIGNATURE = "v1," + base64.b64encode(bytes(32)).decode()
GARBAGE = "v1 v1, v1,!!!! ,v1 v1a,AAAA"
MIB = 1024 * 1024
SIGNATURE = "webhook-signature"


@dataclass(frozen=True, slots=True)
class Letter:
    """What is to be signed and sent."""

    webhook_id: str
    address: str
    body: bytes
    secrets: tuple[str, ...]
    """Each gives one signature."""
    at_s: float
    """What the timestamp says; whole, or it is shown with its fraction."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request as it leaves."""

    address: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    method: str = "POST"
    in_chunks: bool = False
    """Whether the body goes in chunks, without its length."""
    body_s: float = 0.0
    """How long the body takes."""


def outgoing(letter: Letter, action: AttemptAction | None) -> Outgoing:
    """Returns the request that delivers `letter`, as a fault wants it."""
    if action is None:
        return _signed(letter)
    if isinstance(action, SigningAction):
        return _signed_wrongly(letter, action)
    return _carried_wrongly(letter, action)


def _signed_wrongly(letter: Letter, action: SigningAction) -> Outgoing:
    sound = _signed(letter)
    match action:
        case BadSignature():
            return _with_header(sound, SIGNATURE, NO_SIGNATURE)
        case WrongSecret():
            return _signed(replace(letter, secrets=(NOBODYS_SECRET,)))
        case V2Only():
            return _with_header(sound, SIGNATURE, _signature(sound).replace("v1,", "v2,"))
        case TwoSignatures():
            return _signed(replace(letter, secrets=(NOBODYS_SECRET, *letter.secrets)))
        case GarbageTokenFirst():
            return _with_header(sound, SIGNATURE, f"{GARBAGE} {_signature(sound)}")
        case StaleTimestamp():
            return _signed(replace(letter, at_s=letter.at_s - int(action.age_s)))
        case FutureTimestamp():
            return _signed(replace(letter, at_s=letter.at_s + int(action.ahead_s)))
        case FractionalTimestamp():
            return _signed(replace(letter, at_s=letter.at_s + 0.25))
        case MissingHeader():
            return replace(sound, headers=_others(sound, action.header))
        case DuplicateHeader():
            twice = next(pair for pair in sound.headers if pair[0] == action.header)
            return replace(sound, headers=(*sound.headers, twice))
        case _:
            assert_never(action)


def _carried_wrongly(letter: Letter, action: CarryingAction) -> Outgoing:
    sound = _signed(letter)
    match action:
        case TamperBody():
            # The same JSON in other bytes: only who verifies the raw body notices.
            return replace(sound, body=letter.body + b" ")
        case TamperQuery():
            last = "B" if letter.address.endswith("A") else "A"
            return replace(sound, address=letter.address[:-1] + last)
        case AimAtOtherGeneration():
            aimed = re.sub(r"(?<=[?&]g=)[^&#]*", lambda _: action.generation, letter.address)
            return replace(sound, address=aimed)
        case OtherEnvironment():
            return replace(sound, address=letter.address.partition("?")[0] + "?" + action.query)
        case HugeLogs():
            return _signed(replace(letter, body=_with_huge_logs(letter.body, action.size_mib)))
        case Gzip():
            headers = (*sound.headers, ("Content-Encoding", "gzip"))
            return replace(sound, headers=headers, body=gzip.compress(letter.body, mtime=0))
        case Chunked():
            return replace(sound, in_chunks=True)
        case SlowBody():
            return replace(sound, body_s=action.body_s)
        case NotJson():
            return _signed(replace(letter, body=b"<html>" + letter.body[:100]))
        case WrongMethod():
            return replace(sound, method="PUT")
        case _:
            assert_never(action)


def _signed(letter: Letter) -> Outgoing:
    signature = signature_headers(letter.webhook_id, letter.at_s, letter.body, letter.secrets)
    fixed = {"Content-Type": "application/json", "User-Agent": "Replicate/1.0 (simulator)"}
    return Outgoing(letter.address, tuple({**fixed, **signature}.items()), letter.body)


def _signature(request: Outgoing) -> str:
    return dict(request.headers)[SIGNATURE]


def _others(request: Outgoing, name: str) -> tuple[tuple[str, str], ...]:
    return tuple(pair for pair in request.headers if pair[0] != name)


def _with_header(request: Outgoing, name: str, value: str) -> Outgoing:
    return replace(request, headers=(*_others(request, name), (name, value)))


def _with_huge_logs(body: bytes, size_mib: float) -> bytes:
    content = json.loads(body)
    content["logs"] += "x" * int(size_mib * MIB)
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
