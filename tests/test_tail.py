"""A tail's entries and what is believed of them: every value that was framed comes back, and everything else is refused."""

from dataclasses import dataclass, field

import msgspec
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from edgecache.cache.key import Key
from edgecache.cache.lookup import Asked
from edgecache.cache.recording import Facts, etag
from edgecache.fill.tail import (
    TRANSITIONS,
    VERSION,
    Alive,
    Begun,
    Broken,
    Ended,
    Entry,
    Event,
    Forged,
    More,
    Opened,
    State,
    Story,
    frame,
    unframe,
)

ASKED = Asked(Key("ab" * 32), "ns", b"canonical")
OPENED = Opened(VERSION, "ns", b"canonical", 0)
BEGUN = Begun("audio/wav", "c0", True, (), b"")
FACTS = Facts("audio/wav", "wav", 1000, 8000, 1, 1.0, 350.0, 200.0, "c0", etag(b"abcd"))


def ended(audio: bytes, facts: Facts | None = None) -> Ended:
    return Ended(len(audio), xxhash.xxh3_128_digest(audio), facts)


@dataclass
class Followed:
    story: Story = field(default_factory=lambda: Story(ASKED))
    audio: bytes = b""

    def hear(self, *entries: Entry | bytes) -> "Followed":
        for each in entries:
            self.audio += self.story.take(each if isinstance(each, bytes) else frame(each))
        return self


texts = st.text(max_size=40).filter(lambda text: text.isprintable())
entries: st.SearchStrategy[Entry] = st.one_of(
    st.builds(Opened, st.integers(0, 2**31), st.text(max_size=20), st.binary(max_size=50), st.integers(0, 2**62)),
    st.builds(
        Begun,
        st.from_regex(r"[ -~]{0,40}", fullmatch=True),
        st.from_regex(r"[\w.-]{1,64}", fullmatch=True).filter(str.isascii),
        st.booleans(),
        st.one_of(st.none(), st.lists(st.text(max_size=8), max_size=3).map(tuple)),
        st.binary(max_size=50),
    ),
    st.builds(More, st.integers(0, 2**40), st.binary(max_size=200)),
    st.just(Alive()),
    st.builds(Ended, st.integers(0, 2**40), st.binary(min_size=16, max_size=16), st.sampled_from([None, FACTS])),
    st.builds(Broken, st.from_regex(r"[a-z_]{1,20}", fullmatch=True)),
)


@given(entries)
def test_an_entry_comes_back_as_it_was_framed(entry: Entry) -> None:
    assert unframe(frame(entry)) == entry


@given(st.binary(max_size=300))
def test_any_bytes_are_an_entry_or_refused(value: bytes) -> None:
    try:
        entry = unframe(value)
    except Forged:
        return
    assert isinstance(entry, Entry)


@given(entries, st.integers(0, 300), st.binary(max_size=3))
def test_a_cut_or_changed_entry_is_an_entry_or_refused(entry: Entry, at: int, put: bytes) -> None:
    value = frame(entry)
    for damaged in (value[:at], value[:at] + put + value[at + 1 :], value + b"\0"):
        try:
            assert isinstance(unframe(damaged), Entry)
        except Forged:
            continue


@given(st.lists(st.one_of(entries.map(frame), st.binary(max_size=40)), max_size=12))
def test_rule_3_whatever_comes_a_story_is_whole_only_with_an_end_that_agrees(values: list[bytes]) -> None:
    followed = Followed()
    try:
        followed.hear(frame(OPENED), frame(BEGUN), *values)
    except Forged:
        assert followed.story.state is not State.WHOLE
    if followed.story.state is State.WHOLE:
        end = followed.story.ended
        assert end is not None
        assert (end.length, end.checksum) == (len(followed.audio), xxhash.xxh3_128_digest(followed.audio))


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8))
def test_what_was_told_in_pieces_is_heard_whole(pieces: list[bytes]) -> None:
    followed, position = Followed().hear(OPENED, Alive(), BEGUN), 0
    for piece in pieces:
        followed.hear(More(position, piece), Alive())
        position += len(piece)
    whole = b"".join(pieces)
    followed.hear(ended(whole, FACTS))
    assert (followed.story.state, followed.audio) == (State.WHOLE, whole)


FORGED: list[tuple[str, list[Entry | bytes]]] = [
    ("another utterance", [Opened(VERSION, "ns", b"other", 0)]),
    ("another namespace", [Opened(VERSION, "other", b"canonical", 0)]),
    ("another version", [Opened(VERSION + 1, "ns", b"canonical", 0)]),
    ("no opening", [BEGUN]),
    ("an opening twice", [OPENED, OPENED]),
    ("a head twice", [OPENED, BEGUN, BEGUN]),
    ("audio before its head", [OPENED, More(0, b"abcd")]),
    ("an end before its head", [OPENED, ended(b"")]),
    ("a gap", [OPENED, BEGUN, More(0, b"ab"), More(3, b"d")]),
    ("the same bytes again", [OPENED, BEGUN, More(0, b"ab"), More(0, b"ab")]),
    ("an end that is too soon", [OPENED, BEGUN, More(0, b"ab"), Ended(4, xxhash.xxh3_128_digest(b"abcd"), None)]),
    ("other bytes than the end's", [OPENED, BEGUN, More(0, b"abce"), ended(b"abcd")]),
    ("more after the end", [OPENED, BEGUN, ended(b""), Alive()]),
    ("more after a break", [OPENED, BEGUN, Broken("so"), Alive()]),
    ("a header in the media type", [OPENED, frame(Begun("audio/wav\r\nX: y", "c0", True, (), b""))]),
    ("a header in the cluster's name", [OPENED, frame(Begun("audio/wav", "c0; hit", True, (), b""))]),
    ("more tags than there may be", [OPENED, frame(Begun("audio/wav", "c0", True, ("t",) * 129, b""))]),
    ("facts that tell a header", [OPENED, BEGUN, frame(ended(b"", msgspec.structs.replace(FACTS, etag='"')))]),
    ("nothing", [b""]),
    ("a list of the wrong things", [msgspec.msgpack.encode([1, "x", 2, 3])]),
    ("a kind that there is not", [msgspec.msgpack.encode([7])]),
    ("a thousand lists", [b"\x91" * 1000]),
]


@pytest.mark.parametrize("told", [row[1] for row in FORGED], ids=[row[0] for row in FORGED])
def test_rule_1_what_no_leader_of_ours_tells_is_not_believed(told: list[Entry | bytes]) -> None:
    followed = Followed().hear(*told[:-1])
    before = followed.story.state
    with pytest.raises(Forged):
        followed.hear(told[-1])
    assert followed.story.state is before


@pytest.mark.parametrize("state", list(State), ids=lambda state: str(state.value))
def test_a_tail_may_break_off_in_every_state_that_goes_on(state: State) -> None:
    going_on = {before for before, _ in TRANSITIONS}
    assert ((state, Event.BREAK) in TRANSITIONS) == (state in going_on)
