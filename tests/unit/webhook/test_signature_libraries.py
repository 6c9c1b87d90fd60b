"""Our verifier against two that others wrote: each signs, and each judges what was altered."""

import base64
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import standardwebhooks
import svix.webhooks

from services.webhook.signature import BadSignature, Secret, verify
from tests.unit.webhook.test_signature import sign

MESSAGES = 10_000


@dataclass(frozen=True)
class Message:
    """A signed message on its way, to be altered."""

    key: bytes
    webhook_id: str
    timestamp: str
    signature: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()

    def all_headers(self) -> list[tuple[str, str]]:
        return [
            ("Webhook-Id", self.webhook_id),
            ("webhook-timestamp", self.timestamp),
            ("WEBHOOK-SIGNATURE", self.signature),
            *self.headers,
        ]

    def signed_anew(self) -> "Message":
        return replace(self, signature=sign(self.key, self.webhook_id, self.timestamp, self.body))


Alter = Callable[[Message, random.Random], Message]


def _aged(seconds_min: int, seconds_max: int) -> Alter:
    def alter(message: Message, draw: random.Random) -> Message:
        age_s = draw.randint(seconds_min, seconds_max)
        return replace(message, timestamp=str(int(message.timestamp) - age_s)).signed_anew()

    return alter


def _flip(message: Message, draw: random.Random) -> Message:
    if not message.body:
        return message
    place = draw.randrange(len(message.body))
    other = message.body[place] ^ (1 << draw.randrange(5))
    return replace(message, body=message.body[:place] + bytes([other]) + message.body[place + 1 :])


def _wrong(draw: random.Random) -> str:
    return "v1," + base64.b64encode(draw.randbytes(32)).decode()


def _loose(message: Message, draw: random.Random) -> Message:
    place = draw.randrange(4, 40)
    return replace(message, signature=message.signature[:place] + "-" + message.signature[place:])


# Judged alike, by what they alter; whether one alone leaves a message genuine stands beside it.
ALIKE: dict[str, tuple[bool, Alter]] = {
    "unaltered": (True, lambda m, _: m),
    "a little old": (True, _aged(1, 290)),
    "a little early": (True, _aged(-290, -1)),
    "wrong token first": (
        True,
        lambda m, d: replace(m, signature=f"{_wrong(d)} {m.signature}"),
    ),
    "other version first": (True, lambda m, _: replace(m, signature=f"v2,abc {m.signature}")),
    "garbage token last": (True, lambda m, _: replace(m, signature=f"{m.signature} v1,!")),
    "other headers": (True, lambda m, _: replace(m, headers=(("webhook-attempt", "2"),))),
    "empty body": (True, lambda m, _: replace(m, body=b"").signed_anew()),
    "altered body": (False, _flip),
    "longer body": (False, lambda m, _: replace(m, body=m.body + b"\n")),
    "altered id": (False, lambda m, _: replace(m, webhook_id=m.webhook_id + "x")),
    "empty id": (False, lambda m, _: replace(m, webhook_id="").signed_anew()),
    "altered timestamp": (
        False,
        lambda m, d: replace(m, timestamp=str(int(m.timestamp) - d.randint(1, 200))),
    ),
    "too old": (False, _aged(310, 10**6)),
    "too new": (False, _aged(-(10**6), -310)),
    "wrong signature": (False, lambda m, d: replace(m, signature=_wrong(d))),
    "other secret": (False, lambda m, d: replace(m, key=d.randbytes(24)).signed_anew()),
    "version 2 alone": (
        False,
        lambda m, _: replace(m, signature=m.signature.replace("v1,", "v2,")),
    ),
    "no signature": (False, lambda m, _: replace(m, signature="")),
    "words as timestamp": (False, lambda m, _: replace(m, timestamp="now")),
}

# Where we differ from the libraries on purpose: whether we accept; they answer the contrary.
DIFFERENT: dict[str, tuple[bool, Alter]] = {
    # They raise foreign exceptions at the first malformed token and never see the good one.
    "token without comma first": (
        True,
        lambda m, _: replace(m, signature=f"garbage {m.signature}"),
    ),
    "token with two commas first": (
        True,
        lambda m, _: replace(m, signature=f"v1,a,b {m.signature}"),
    ),
    "token of broken base64 first": (
        True,
        lambda m, _: replace(m, signature=f"v1,abc {m.signature}"),
    ),
    "two spaces between tokens": (
        True,
        lambda m, d: replace(m, signature=f"{_wrong(d)}  {m.signature}"),
    ),
    # They decode the body before they verify it.
    "body that is not UTF-8": (
        True,
        lambda m, d: replace(m, body=b"\xff" + d.randbytes(9)).signed_anew(),
    ),
    # They read the timestamp as a float and sign what they read.
    "timestamp with a fraction": (False, lambda m, _: replace(m, timestamp=m.timestamp + ".5")),
    "timestamp with a sign": (False, lambda m, _: replace(m, timestamp="+" + m.timestamp)),
    "timestamp with a space": (False, lambda m, _: replace(m, timestamp=m.timestamp + " ")),
    "timestamp with an underscore": (
        False,
        lambda m, _: replace(m, timestamp=m.timestamp[:3] + "_" + m.timestamp[3:]),
    ),
    "timestamp with leading zeros, signed without": (
        False,
        lambda m, _: replace(m, timestamp="0" + m.timestamp),
    ),
    "timestamp with leading zeros, signed with them": (
        True,
        lambda m, _: replace(m, timestamp="0" + m.timestamp).signed_anew(),
    ),
    # They have no limits.
    "id with a space": (False, lambda m, _: replace(m, webhook_id="a b").signed_anew()),
    "id that is not ASCII": (False, lambda m, _: replace(m, webhook_id="\u00e9").signed_anew()),
    "id of 257 characters": (False, lambda m, _: replace(m, webhook_id="i" * 257).signed_anew()),
    "very long signature header": (
        False,
        lambda m, d: replace(m, signature=" ".join([_wrong(d)] * 100 + [m.signature])),
    ),
    # They skip characters that base64 does not have.
    "token of loose base64": (False, _loose),
}

ASPECTS = (
    ("other headers",),
    ("empty body", "altered body", "longer body"),
    ("altered id", "empty id"),
    (
        "a little old", "a little early", "altered timestamp",
        "too old", "too new", "words as timestamp",
    ),
    (
        "wrong token first", "other version first", "garbage token last", "wrong signature",
        "version 2 alone", "no signature", "other secret",
    ),
)  # fmt: skip
"""The alterations that are judged alike, by the part that they alter."""


SIGNERS: dict[str, Any] = {
    "standardwebhooks": standardwebhooks.Webhook,
    "svix": svix.webhooks.Webhook,
}


def _drawn_message(signer: str, draw: random.Random, now: datetime) -> Message:
    key = draw.randbytes(draw.choice([16, 24, 32, 64]))
    webhook_id = f"msg_{draw.getrandbits(100):x}"
    words = {"id": f"{draw.getrandbits(60):x}", "status": "succeeded", "logs": "\u00e9\U0001f600"}
    text = json.dumps(words, ensure_ascii=draw.random() < 0.5) * draw.randint(1, 3)
    signed = SIGNERS[signer](key).sign(webhook_id, now.replace(tzinfo=None), text)
    return Message(key, webhook_id, str(int(now.timestamp())), signed, text.encode())


def _accepted_by_library(signer: str, key: bytes, message: Message) -> bool:
    headers = dict(message.all_headers())
    try:
        library = SIGNERS[signer](key)
        if signer == "svix":
            library.verify(message.body, headers)
        else:
            library.verify(message.body, headers, json_parse=False)
    except json.JSONDecodeError:
        return True  # It reads what it has verified.
    except Exception:  # noqa: BLE001  Foreign exceptions are one of the differences.
        return False
    return True


def _accepted_by_us(key: bytes, message: Message, now: datetime) -> bool:
    try:
        verify(message.body, message.all_headers(), (Secret(0, key),), now)
    except BadSignature:
        return False
    return True


def _judgments(message: Message, key: bytes) -> tuple[bool, bool, bool]:
    """Returns whether it is accepted by us, by standardwebhooks and by svix."""
    return (
        _accepted_by_us(key, message, datetime.now(UTC)),
        _accepted_by_library("standardwebhooks", key, message),
        _accepted_by_library("svix", key, message),
    )


def _drawn_aspects(draw: random.Random) -> list[str]:
    """Returns up to three alterations that are judged alike, each of another part."""
    names = [draw.choice(names) for names in ASPECTS]
    return draw.sample(names, draw.randint(0, 3))


def test_the_two_libraries_are_two() -> None:
    assert "standardwebhooks" not in Path(str(svix.webhooks.__file__)).read_text()


def test_every_alteration_alone_is_judged_as_listed() -> None:
    draw = random.Random(20_260)  # noqa: S311
    for signer in SIGNERS:
        for name, (expected, alter) in {**ALIKE, **DIFFERENT}.items():
            original = _drawn_message(signer, draw, datetime.now(UTC))
            theirs = expected == (name in ALIKE)
            judgments = _judgments(alter(original, draw), original.key)
            assert judgments == (expected, theirs, theirs), (signer, name)


def test_ten_thousand_messages_are_judged_alike_but_for_the_listed_differences() -> None:
    draw = random.Random(20_261)  # noqa: S311
    counts: Counter[tuple[str, bool]] = Counter()
    seen: Counter[str] = Counter()

    for number in range(MESSAGES):
        signer = list(SIGNERS)[number % 2]
        original = message = _drawn_message(signer, draw, datetime.now(UTC))
        names = _drawn_aspects(draw)
        for name in names:
            _, alter = ALIKE[name]
            message = alter(message, draw)
        judgments = _judgments(message, original.key)
        ours = judgments[0]
        assert len(set(judgments)) == 1, (signer, names, judgments, message)
        counts[signer, ours] += 1
        seen.update(names)

    print(f"accepted and refused, by signer: {dict(counts)}")  # noqa: T201
    assert set(seen) == set(ALIKE) - {"unaltered"}
    assert all(counts[signer, verdict] >= 1000 for signer in SIGNERS for verdict in (True, False))
