"""What a quote says before anybody pays."""

from datetime import timedelta

import pytest

from services.cli.generate import quote_lines
from services.client.generations import Eta, Quote
from tests.unit.cli.samples import NOON


@pytest.mark.parametrize(
    ("available", "told"), [(100, "80 afterwards"), (20, "0 afterwards"), (5, "15 too few")]
)
def test_a_quote_says_the_price_how_long_it_holds_and_what_is_left(
    available: int, told: str
) -> None:
    eta = Eta(NOON + timedelta(seconds=40), NOON + timedelta(seconds=80))
    quote = Quote(20, available, available - 20, 3, eta, "token", NOON + timedelta(minutes=5))

    assert quote_lines(quote, NOON) == [
        "price    20 credits, held for 5 min",
        f"balance  {available} credits available, {told}",
        "queue    3 before it",
        "ready    in 40 s to 80 s",
    ]
