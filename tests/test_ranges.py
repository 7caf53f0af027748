"""Conditional and range requests (RFC 9110 §13, §14)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.delivery.ranges import NotModified, Part, Portion, Unsatisfiable, Whole, portion

ROWS: list[tuple[str, str | None, str | None, str | None, Portion]] = [
    ("nothing said", None, None, None, Whole()),
    ("first bytes", None, "bytes=0-9", None, Part(0, 9)),
    ("what Safari asks", None, "bytes=0-1", None, Part(0, 1)),
    ("from the middle on", None, "bytes=50-", None, Part(50, 99)),
    ("past the end is cut", None, "bytes=50-5000", None, Part(50, 99)),
    ("last bytes", None, "bytes=-10", None, Part(90, 99)),
    ("more last bytes than there are", None, "bytes=-1000", None, Part(0, 99)),
    ("no last bytes", None, "bytes=-0", None, Unsatisfiable()),
    ("beyond the end", None, "bytes=100-", None, Unsatisfiable()),
    ("backwards is no range", None, "bytes=9-0", None, Whole()),
    ("several ranges may be ignored", None, "bytes=0-1,5-6", None, Whole()),
    ("another unit", None, "seconds=0-1", None, Whole()),
    ("nonsense", None, "bytes=-", None, Whole()),
    ("unicode digits", None, "bytes=٠-١", None, Whole()),
    ("same bytes", '"tag"', None, None, NotModified()),
    ("same bytes, weakly", 'W/"tag"', None, None, NotModified()),
    ("one of several", '"a", "tag"', None, None, NotModified()),
    ("anything", "*", None, None, NotModified()),
    ("other bytes", '"other"', None, None, Whole()),
    ("a tag that holds ours", '"xtagx"', None, None, Whole()),
    ("the precondition comes first", '"tag"', "bytes=0-1", None, NotModified()),
    ("same bytes still", None, "bytes=0-1", '"tag"', Part(0, 1)),
    ("other bytes now", None, "bytes=0-1", '"other"', Whole()),
    ("a weak tag is not enough", None, "bytes=0-1", 'W/"tag"', Whole()),
    ("a date is not our validator", None, "bytes=0-1", "Mon, 23 Nov 2026 00:00:00 GMT", Whole()),
]


@pytest.mark.parametrize(
    ("condition", "asked", "if_range", "expected"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS]
)
def test_portion(condition: str | None, asked: str | None, if_range: str | None, expected: Portion) -> None:
    assert portion(100, "tag", condition, asked, if_range) == expected


@given(st.text(max_size=30), st.text(max_size=30), st.integers(0, 50))
def test_any_header_ends_in_a_portion_that_exists(condition: str, asked: str, length: int) -> None:
    match portion(length, "tag", condition, f"bytes={asked}", None):
        case Part(first, last):
            assert 0 <= first <= last < length
        case Whole() | NotModified() | Unsatisfiable():
            pass
