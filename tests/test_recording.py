"""The stored frame: what comes back is what went in, or nothing (rule 6); and what may be served (rule 1)."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from edgecache.cache.key import Key
from edgecache.cache.lookup import Asked, Freshness, Hit, Miss, Stale, judge
from edgecache.cache.recording import BrokenRecord, Facts, Recording, etag, frame, glimpse, unframe

AUDIO = b"RIFF" + bytes(range(256)) * 4
KEY = Key("ab" * 32)
FACTS = Facts("audio/wav", "wav", 1000, 24000, 1, 1_000.0, 350.0, 200.0, "near", etag(AUDIO))
RECORDING = Recording(KEY, "tenant", b"\x01canonical", FACTS, AUDIO)
FRAMED = frame(RECORDING)


@given(st.binary(max_size=200), st.binary(max_size=50), st.text(max_size=10))
@settings(max_examples=100)
def test_a_frame_gives_back_what_it_was_given(audio: bytes, canonical: bytes, cluster: str) -> None:
    facts = msgspec.structs.replace(FACTS, cluster=cluster, etag=etag(audio))
    recording = Recording(KEY, "n", canonical, facts, audio)
    assert unframe(KEY, frame(recording)) == recording


@pytest.mark.parametrize("at", range(0, len(FRAMED), 7))
@pytest.mark.parametrize("bit", [0x01, 0x80])
def test_rule_6_a_flipped_bit_is_never_believed(at: int, bit: int) -> None:
    flipped = bytearray(FRAMED)
    flipped[at] ^= bit
    with pytest.raises(BrokenRecord):
        unframe(KEY, bytes(flipped))


@pytest.mark.parametrize("length", [*range(0, 80, 3), len(FRAMED) // 2, len(FRAMED) - 1])
def test_rule_6_a_cut_record_is_never_believed(length: int) -> None:
    with pytest.raises(BrokenRecord):
        unframe(KEY, FRAMED[:length])


@pytest.mark.parametrize("extra", [b"\x00", FRAMED])
def test_rule_6_trailing_bytes_are_never_believed(extra: bytes) -> None:
    with pytest.raises(BrokenRecord):
        unframe(KEY, FRAMED + extra)


@given(st.binary(max_size=120))
@settings(max_examples=200)
def test_rule_6_any_bytes_end_in_a_recording_or_a_broken_record(some: bytes) -> None:
    with pytest.raises(BrokenRecord):
        unframe(KEY, some)


ASKED = Asked(KEY, "tenant", b"\x01canonical")
POLICY = Freshness(ttl_s=100.0, stale_if_error_s=50.0)
JUDGED = [
    ("nothing there", ASKED, None, 1000.0, Miss, False),
    ("fresh", ASKED, RECORDING, 1000.0, Hit, False),
    ("fresh to the last second", ASKED, RECORDING, 1099.9, Hit, False),
    ("stale", ASKED, RECORDING, 1100.0, Stale, False),
    ("too old", ASKED, RECORDING, 1150.0, Miss, False),
    ("made by a clock ahead of ours", ASKED, RECORDING, 500.0, Hit, False),
    ("another utterance under our key", replace(ASKED, canonical=b"\x01other"), RECORDING, 1000.0, Miss, True),
    ("another tenant's", replace(ASKED, namespace="other"), RECORDING, 1000.0, Miss, True),
]


@pytest.mark.parametrize(
    ("asked", "found", "now", "kind", "mismatch"), [row[1:] for row in JUDGED], ids=[row[0] for row in JUDGED]
)
def test_rule_1_what_may_be_served(
    asked: Asked, found: Recording | None, now: float, kind: type, mismatch: bool
) -> None:
    verdict = judge(asked, found, POLICY, now)
    assert isinstance(verdict, kind)
    assert getattr(verdict, "mismatch", False) == mismatch


@pytest.mark.parametrize("length", [*range(0, len(FRAMED), 11), len(FRAMED)])
def test_a_glimpse_is_of_the_whole_facts_or_there_is_none(length: int) -> None:
    seen = glimpse(KEY, FRAMED[:length])
    facts_end = len(FRAMED) - len(AUDIO) - 16
    assert seen == (replace(RECORDING, audio=b"") if length >= facts_end else None)


@given(st.binary(max_size=120))
def test_a_glimpse_of_anything_is_something_or_nothing(some: bytes) -> None:
    assert glimpse(KEY, some) is None
