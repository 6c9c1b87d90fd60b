import json
from typing import Any

import pytest

from services.simulator.subjects import asked_in, group_of, read_ask

HOOK = "https://ours.example/hook?g=g1&a=1&k=proof"


@pytest.mark.parametrize(
    ("webhook", "given", "group"),
    [
        (HOOK, {"seed": 7, "image": "https://media.example/a.png?g=g2"}, "g1"),
        (None, {"seed": 7, "image": "https://media.example/a.png?g=g2&a=1"}, "g2"),
        ("https://x.example/hook", {"image": "https://m.example/a.png?k=1"},
         "image https://m.example/a.png"),
        (None, {"seed": 7, "image": "data:image/png;base64,AAAA"}, "seed 7"),
        (None, {"seed": 0}, "seed 0"),
        (None, {"seed": True}, ""),
        (None, {"seed": "7"}, ""),
        (None, {}, ""),
        ("http://[", {"seed": 7}, "seed 7"),
        (5, None, ""),
    ],
)  # fmt: skip
def test_a_create_is_grouped_by_query_else_image_else_seed(
    webhook: Any, given: Any, group: str
) -> None:
    assert group_of(webhook, given) == group


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_what_cannot_be_read_asks_for_nothing(text: bytes) -> None:
    asked = asked_in(read_ask(text))

    assert (asked.group, asked.seed, asked.webhook) == ("", None, None)


def test_what_a_create_asks_for_is_noted() -> None:
    body = json.dumps({"input": {"seed": 7}, "webhook": HOOK}).encode()

    asked = asked_in(read_ask(body))

    assert (asked.group, asked.seed, asked.webhook) == ("g1", 7, HOOK)
