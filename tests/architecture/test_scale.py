"""The arithmetic of the page on scale is done, and by the script that the page names."""

from docs.arithmetic import PAGE, Inputs, renewed


def test_the_table_is_what_its_inputs_come_to() -> None:
    page = PAGE.read_text()

    assert renewed(page) == page, "run `python -m docs.arithmetic`"


def test_the_page_says_where_the_providers_limit_lies() -> None:
    limit = Inputs().creates_a_minute_max * 60 * 24

    assert f"{limit:,} a day" in PAGE.read_text()
    assert f"{round(limit / Inputs().peak):,} with" in PAGE.read_text()
