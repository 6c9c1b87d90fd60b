"""Which bytes of a file a request gets, against a reference that slices."""

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.web.ranges import NoSuchRange, Span, Unchanged, Whole, choose, is_known

TAG = "20c1f1-660cd0-a"
SIZE = 10


def chosen(
    wanted: str | None = None,
    if_none_match: str | None = None,
    if_range: str | None = None,
    size_bytes: int = SIZE,
) -> Whole | Span | Unchanged | NoSuchRange:
    return choose(size_bytes, TAG, wanted=wanted, if_none_match=if_none_match, if_range=if_range)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (None, Whole()),
        ("bytes=0-0", Span(0, 1)),
        ("bytes=0-", Span(0, 10)),
        ("bytes=3-5", Span(3, 6)),
        ("bytes=3-99", Span(3, 10)),
        ("bytes=9-", Span(9, 10)),
        ("bytes=-3", Span(7, 10)),
        ("bytes=-99", Span(0, 10)),
        ("BYTES= 1-2 ", Span(1, 3)),
        ("bytes=10-", NoSuchRange()),
        ("bytes=10-12", NoSuchRange()),
        ("bytes=-0", NoSuchRange()),
        # What is no range is passed over, and so are several.
        ("bytes=5-3", Whole()),
        ("bytes=-", Whole()),
        ("bytes=a-b", Whole()),
        ("bytes=0-1,3-4", Whole()),
        ("bytes=0-1,", Whole()),
        ("items=0-1", Whole()),
        ("bytes 0-1", Whole()),
        ("bytes=+1-2", Whole()),
        ("bytes=\u0663-\u0665", Whole()),
        (f"bytes={'9' * 5000}-", Whole()),
        ("", Whole()),
    ],
)
def test_one_range_of_bytes_is_understood(
    wanted: str | None, expected: Whole | Span | NoSuchRange
) -> None:
    assert chosen(wanted) == expected


def test_an_empty_file_has_no_range() -> None:
    assert chosen(None, size_bytes=0) == Whole()
    assert chosen("bytes=0-", size_bytes=0) == NoSuchRange()
    assert chosen("bytes=-1", size_bytes=0) == NoSuchRange()


@pytest.mark.parametrize(
    ("if_range", "expected"),
    [
        (f'"{TAG}"', Span(1, 3)),
        (f'W/"{TAG}"', Whole()),
        ('"another"', Whole()),
        ("Wed, 01 Jul 2026 12:00:00 GMT", Whole()),
        ("", Whole()),
    ],
)
def test_a_range_counts_only_of_the_file_that_it_continues(
    if_range: str, expected: Whole | Span
) -> None:
    assert chosen("bytes=1-2", if_range=if_range) == expected


@pytest.mark.parametrize(
    ("if_none_match", "known"),
    [
        (f'"{TAG}"', True),
        (f'W/"{TAG}"', True),
        (f'"another", "{TAG}"', True),
        (f'"another","{TAG}" , W/"third"', True),
        ("*", True),
        ('"another"', False),
        (TAG, False),
        (f'"{TAG}', False),
        (f'"x{TAG}"', False),
        ("", False),
    ],
)
def test_what_the_caller_has_is_not_sent_again(if_none_match: str, known: bool) -> None:
    assert is_known(TAG, if_none_match) is known
    # It comes before the range.
    assert (chosen("bytes=99-", if_none_match=if_none_match) == Unchanged()) is known


def test_every_range_is_what_slicing_gives() -> None:
    outcomes: Counter[str] = Counter()
    place = st.one_of(st.just(""), st.integers(0, 40).map(str))

    @settings(max_examples=2000, database=None, derandomize=True)
    @given(st.integers(0, 20), place, place)
    def check(size_bytes: int, first: str, last: str) -> None:
        content = bytes(range(size_bytes))
        found = chosen(f"bytes={first}-{last}", size_bytes=size_bytes)
        outcomes[type(found).__name__] += 1
        match found:
            case Span(start=start, end=end):
                assert 0 <= start < end <= size_bytes
                assert content[start:end] == reference(content, first, last)
            case NoSuchRange():
                assert reference(content, first, last) == b""
            case Whole():
                assert not (first or last) or (first and last and int(last) < int(first))
            case _:
                raise AssertionError(found)

    check()

    assert outcomes["Span"] > 200
    assert outcomes["NoSuchRange"] > 200
    assert outcomes["Whole"] > 100


def reference(content: bytes, first: str, last: str) -> bytes:
    """The bytes that a range names, one by one."""
    if not first:
        return bytes(
            byte for place, byte in enumerate(content) if len(content) - place <= int(last)
        )
    end = int(last) if last else len(content)
    return bytes(byte for place, byte in enumerate(content) if int(first) <= place <= end)


def test_no_header_takes_long_to_read() -> None:
    long = '"' + "W/" * 50_000 + ","
    assert not is_known(TAG, long)
    assert chosen("bytes=" + " " * 50_000 + "1-2x") == Whole()
    assert re.fullmatch(r'"[^"]*"', f'"{TAG}"')
