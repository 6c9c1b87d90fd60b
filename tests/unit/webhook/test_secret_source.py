import base64
from datetime import UTC, datetime, timedelta

import pytest

from services.webhook.secret_source import parse_secrets
from services.webhook.signature import Secret

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KEYS = [bytes([number]) * 24 for number in range(3)]
TEXTS = ["whsec_" + base64.b64encode(key).decode() for key in KEYS]


def test_secrets_are_read_newest_first_with_the_ends_of_retired_ones() -> None:
    text = f"{TEXTS[0]}, {TEXTS[1]}@2026-01-03T03:04:05Z,{TEXTS[2]}@2026-01-01T00:00:00+02:00"

    assert parse_secrets(text, NOW) == (
        Secret(0, KEYS[0]),
        Secret(1, KEYS[1], NOW + timedelta(hours=24)),
        Secret(2, KEYS[2], datetime(2025, 12, 31, 22, tzinfo=UTC)),
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "secret 1 does not start with whsec_"),
        (f"{TEXTS[0]},", "secret 2 does not start with whsec_"),
        (f"{TEXTS[0]},whsec_c2hvcnQ=", "secret 2 has fewer than 16 bytes"),
        (f"{TEXTS[0]}@soon", "secret 1 has an end that is no ISO 8601 time"),
        (f"{TEXTS[0]}@2026-01-02T05:00:00", "secret 1 has an end without a time zone"),
        (f"{TEXTS[0]}@2026-01-03T03:04:06Z", "secret 1 ends more than 24 hours from now"),
        (f"{TEXTS[0]}@2026-01-03T03:04:05Z", "needs one secret without an end time"),
    ],
)
def test_a_wrong_list_is_refused_by_place_and_rule(text: str, problem: str) -> None:
    with pytest.raises(ValueError) as raised:
        parse_secrets(text, NOW)

    assert str(raised.value) == problem
