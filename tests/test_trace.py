"""A trace's context as it is read and passed on: by the tables of W3C Trace Context."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.cache.trace import PARENT, STATE, Trace, read

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE_ID}-{SPAN_ID}-01"
READ = {
    "sampled": (GOOD, True),
    "not sampled": (GOOD[:-2] + "00", False),
    "other flags too": (GOOD[:-2] + "ff", True),
    "a later version": ("cc" + GOOD[2:], True),
    "a later version with more": ("01" + GOOD[2:] + "-what-comes-later", True),
}
DROPPED = {
    "empty": "",
    "no version": GOOD[3:],
    "a version that is none": "ff" + GOOD[2:],
    "upper case": GOOD.upper(),
    "no trace": f"00-{'0' * 32}-{SPAN_ID}-01",
    "no span": f"00-{TRACE_ID}-{'0' * 16}-01",
    "short": GOOD[:-1],
    "more than version 00 has": GOOD + "-x",
    "a space": GOOD + " ",
    "not hexadecimal": GOOD.replace("b7", "g7"),
}
STATES = {
    "one": ("congo=t61rcWkgMzE", "congo=t61rcWkgMzE"),
    "several, with spaces": ("a=1, b=2 ,\tc@d=3", "a=1,b=2,c@d=3"),
    "empty members": (",a=1,,", "a=1"),
    "no value": ("a", ""),
    "a key in capitals": ("A=1", ""),
    "a line break": ("a=1\r\nb: c", ""),
    "too many": (",".join(f"k{n}=v" for n in range(33)), ""),
    "too long": (f"a={'x' * 256},b={'y' * 256}", ""),
}


@pytest.mark.parametrize(("said", "sampled"), READ.values(), ids=READ)
def test_what_is_read(said: str, sampled: bool) -> None:
    found = read({PARENT: said})
    assert found == Trace(TRACE_ID, SPAN_ID, found.flags if found else 0)
    assert found.sampled is sampled


@pytest.mark.parametrize("said", DROPPED.values(), ids=DROPPED)
def test_what_is_malformed_is_dropped(said: str) -> None:
    assert read({PARENT: said, STATE: "a=1"}) is None


def test_without_a_parent_there_is_nothing_and_no_state() -> None:
    assert read({STATE: "a=1"}) is None


@pytest.mark.parametrize(("said", "passed"), STATES.values(), ids=STATES)
def test_the_state_is_passed_on_or_dropped_as_a_whole(said: str, passed: str) -> None:
    found = read({PARENT: GOOD, STATE: said})
    assert found is not None
    assert found.headers == ({PARENT: GOOD, STATE: passed} if passed else {PARENT: GOOD})


def test_a_child_is_of_the_same_trace_and_names_its_parent() -> None:
    found = read({PARENT: GOOD, STATE: "a=1"})
    assert found is not None
    child = found.child("00f067aa0ba902b7")
    assert child == Trace(TRACE_ID, "00f067aa0ba902b7", 1, "a=1", SPAN_ID)
    assert child.headers[PARENT] == f"00-{TRACE_ID}-00f067aa0ba902b7-01"


@given(st.text(max_size=80), st.text(max_size=80))
def test_whatever_is_said_what_is_passed_on_is_well_formed(parent: str, state: str) -> None:
    for said in (parent, GOOD):
        found = read({PARENT: said, STATE: state})
        if found is not None:
            again = read(found.headers)
            assert again == Trace(found.trace_id, found.span_id, found.flags, found.state)
            assert all(text.isascii() and text.isprintable() for text in found.headers.values())
