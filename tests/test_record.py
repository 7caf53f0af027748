"""Records that are read again: the same as if each were read for the first time, and within bounds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from edgecache.cache.key import Key
from edgecache.cache.record import Records
from edgecache.cache.recording import BrokenRecord, Facts, Recording, etag, frame, unframe

AUDIO = b"RIFF" + bytes(range(256)) * 2
KEY, OTHER = Key("ab" * 32), Key("cd" * 32)
FACTS = Facts("audio/wav", "wav", 1000, 24000, 1, 1_000.0, 350.0, 200.0, "near", etag(AUDIO))
RECORDING = Recording(KEY, "tenant", b"\x01canonical", FACTS, AUDIO)
FRAMED = frame(RECORDING)


def read(records: Records, framed: bytes, key: Key = KEY) -> Recording | None:
    try:
        return records.read(key, memoryview(framed)).whole()
    except BrokenRecord:
        return None


def test_what_begins_alike_is_the_same_but_for_its_audio() -> None:
    records = Records()
    first = records.read(KEY, memoryview(FRAMED))
    again = records.read(KEY, memoryview(bytearray(FRAMED)))
    assert again.bare is first.bare
    assert first.whole() == again.whole() == RECORDING
    assert again.whole() is again.whole()


@pytest.mark.parametrize(
    "other",
    [
        replace(RECORDING, namespace="other"),
        replace(RECORDING, canonical=b"\x01canonicaL"),
        replace(RECORDING, facts=replace(FACTS, made_at=2_000.0)),
        replace(RECORDING, audio=AUDIO + b"more"),
        replace(RECORDING, audio=bytes(len(AUDIO))),
        replace(RECORDING, audio=b""),
    ],
    ids=["namespace", "utterance", "facts", "longer audio", "other audio", "no audio"],
)
def test_rule_1_a_record_in_the_place_of_another_is_read_as_itself(other: Recording) -> None:
    records = Records()
    assert read(records, FRAMED) == RECORDING
    assert read(records, frame(other)) == other
    assert read(records, FRAMED) == RECORDING


@pytest.mark.parametrize("at", range(len(FRAMED)))
def test_rule_6_a_flipped_bit_is_never_believed_however_well_the_record_is_known(at: int) -> None:
    records = Records()
    assert read(records, FRAMED) == RECORDING
    assert read(records, FRAMED[:at] + bytes([FRAMED[at] ^ 1]) + FRAMED[at + 1 :]) is None
    assert read(records, FRAMED) == RECORDING


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 700), st.binary(max_size=3)), max_size=20)
)
@settings(deadline=None)
def test_rule_6_what_was_read_before_changes_nothing(steps: list[tuple[int, int, int, bytes]]) -> None:
    """Some recordings under some keys, whole or cut somewhere and mended."""
    records = Records(8000)
    for name, where, cut, more in steps:
        key = Key(f"{where:064x}")
        framed = frame(replace(RECORDING, key=key, canonical=b"%d" % name, audio=AUDIO + bytes(name)))
        framed = framed[:cut] + more + framed[cut:]
        try:
            expected = unframe(key, framed)
        except BrokenRecord:
            expected = None
        assert read(records, framed, key) == expected


def test_rule_6_facts_that_no_head_can_hold_are_refused_each_time() -> None:
    records, forged = Records(), frame(replace(RECORDING, facts=replace(FACTS, media_type="a\r\nSet-Cookie: b")))
    assert read(records, forged) is None
    assert read(records, forged) is None


def test_rule_7_what_is_remembered_is_bounded_and_what_is_used_stays() -> None:
    records = Records(40_000)
    assert read(records, FRAMED) == RECORDING
    kept = records.read(KEY, memoryview(FRAMED)).bare
    for number in range(200):
        assert read(records, FRAMED, Key(f"{number:064x}")) is not None
        assert records.read(KEY, memoryview(FRAMED)).bare is kept
    assert int(repr(records).split()[1]) < 40_000 / 1500
    long = frame(replace(RECORDING, canonical=bytes(10_000)))
    assert read(records, long) == unframe(KEY, long)
