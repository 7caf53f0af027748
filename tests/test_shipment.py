"""The stream of an export: whatever is done to it, what is whole is read, and what is not is told."""

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.cache import shipment
from edgecache.cache.shipment import Broken, Found, Kind, Part, Reader, part

CONTENTS = [b"one", b"", b"three" * 50, b"\x8eECS", b"\x8eECS\x02" + bytes(20)]
PARTS = [part(Kind.RECORDING, each) for each in CONTENTS]
STREAM = b"".join(PARTS)
STARTS = [sum(map(len, PARTS[:n])) for n in range(len(PARTS) + 1)]


def read(pieces: Iterable[bytes]) -> list[Found]:
    reader, found = Reader(), list[Found]()
    for piece in pieces:
        found += reader.feed(piece)
    return found + list(reader.finish())


def contents(found: Iterable[Found]) -> list[bytes]:
    return [each.content for each in found if isinstance(each, Part)]


def broken(found: Iterable[Found]) -> list[Broken]:
    return [each for each in found if isinstance(each, Broken)]


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_what_was_written_is_read_however_it_comes(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    found = read(STREAM[a:b] for a, b in pairwise(places))
    assert [(each.content, each.at) for each in found if isinstance(each, Part)] == list(
        zip(CONTENTS, STARTS, strict=False)
    )
    assert not broken(found)


def test_byte_by_byte() -> None:
    assert contents(read(STREAM[n : n + 1] for n in range(len(STREAM)))) == CONTENTS


@pytest.mark.parametrize("cut", range(1, len(STREAM)))
def test_a_stream_that_is_cut_gives_what_is_whole_and_says_so(cut: int) -> None:
    found = read([STREAM[:cut]])
    whole = sum(start <= cut for start in STARTS[1:])
    assert contents(found) == CONTENTS[:whole]
    assert bool(broken(found)) == (cut not in STARTS)


@given(st.integers(0, len(STREAM) - 1), st.integers(1, 255))
def test_a_byte_that_changed_costs_one_part_at_most(at: int, change: int) -> None:
    changed = bytearray(STREAM)
    changed[at] ^= change
    hit = max(n for n, start in enumerate(STARTS) if start <= at)
    found = read([bytes(changed)])
    assert contents(found) == [each for n, each in enumerate(CONTENTS) if n != hit]
    assert [each.at for each in broken(found)] == [STARTS[hit]]


@given(st.integers(0, len(STREAM) - 1), st.integers(1, 40), st.binary(max_size=40))
def test_bytes_taken_out_or_put_in_cost_no_part_that_they_do_not_touch(at: int, out: int, put: bytes) -> None:
    touched = [n for n in range(len(PARTS)) if STARTS[n] < at + out and at < STARTS[n + 1]]
    found = contents(read([STREAM[:at] + put + STREAM[at + out :]]))
    others = [each for n, each in enumerate(CONTENTS) if n not in touched]
    assert [each for each in found if each in others] == others
    assert set(found) <= set(CONTENTS)


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_any_bytes_come_to_an_end(pieces: list[bytes]) -> None:
    read(pieces)
    read([b"\x8eECS".join(pieces)])


def test_a_part_that_says_it_is_larger_than_any_is_not_waited_for() -> None:
    huge = shipment._head(Kind.RECORDING, shipment.MAX_PART_BYTES + 1, 0)
    reader = Reader()
    found = [*reader.feed(huge + bytes(1000) + PARTS[0] + PARTS[1])]
    assert contents(found) == [b"one", b""]
    assert [each.why for each in broken(found)] == ["a part is too large"]
