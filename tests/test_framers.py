"""Framings of speech, pure: read back by other people's parsers, whole, cut at every byte, and with bytes behind them."""

import json
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecache.cache.key import Key
from edgecache.delivery.accept import Way, way
from edgecache.delivery.framer import Framer
from edgecache.delivery.protobuf import Delimited, varint
from edgecache.delivery.sse import EVENT_BYTES, PIECE_BYTES, ServerSentEvents
from edgecache.errors import SpeechError, UpstreamError
from edgecache.fill.telling import About, Cached, End, Piece, Sentence
from tests.spoken import Spoken, events, of_events, of_messages

ABOUT = About("audio/wav", "wav", 24000, 1, None, Cached.MISS, "c0", Key("ab" * 32))
ERROR = UpstreamError(502, "broken_off", "The cluster c0 broke off\nin mid-speech: data: \ud800", None)

FRAMINGS: Mapping[str, tuple[Callable[[], Framer], Callable[[bytes], Spoken]]] = {
    "events": (ServerSentEvents, of_events),
    "messages": (Delimited, of_messages),
}
each_framing = pytest.mark.parametrize("framing", FRAMINGS)
pieces = st.lists(st.binary(min_size=1, max_size=300), max_size=6)


def frames(framer: Framer, audio: list[bytes], error: SpeechError | None = None, about: About = ABOUT) -> list[bytes]:
    made, at = [framer.begin(about)], 0
    for sequence, each in enumerate(audio):
        made.append(framer.piece(Piece(each, sequence, at, len(each))))
        at += len(each)
    made.append(framer.end(about, End(at, at, len(audio))) if error is None else framer.error(error))
    return made


def framed(framing: str, audio: list[bytes], error: SpeechError | None = None) -> bytes:
    return b"".join(frames(FRAMINGS[framing][0](), audio, error))


def read(framing: str, body: bytes) -> Spoken:
    return FRAMINGS[framing][1](body)


@each_framing
@settings(deadline=None)
@given(audio=pieces)
def test_what_is_framed_is_read_back(framing: str, audio: list[bytes]) -> None:
    spoken = read(framing, framed(framing, audio))
    assert spoken.audio == b"".join(audio)
    assert (spoken.ended, spoken.end["duration_ms"]) == ("done", len(spoken.audio))
    assert len(spoken.chunks) == len(audio)
    assert spoken.metadata == {
        "format": "wav",
        "media_type": "audio/wav",
        "sample_rate": 24000,
        "channels": 1,
        "duration_ms": None,
        "cache": "miss",
        "key": ABOUT.key,
    }


@each_framing
@settings(deadline=None)
@given(audio=pieces)
def test_rule_3_an_error_is_no_end(framing: str, audio: list[bytes]) -> None:
    spoken = read(framing, framed(framing, audio, ERROR))
    assert spoken.audio == b"".join(audio)
    assert (spoken.ended, spoken.end["status"], spoken.end["error"]["code"]) == ("error", 502, "broken_off")


@each_framing
@settings(max_examples=25, deadline=None)
@given(audio=st.lists(st.binary(min_size=1, max_size=30), max_size=4))
def test_rule_3_cut_anywhere_it_is_a_beginning_and_has_no_end(framing: str, audio: list[bytes]) -> None:
    body = framed(framing, audio)
    whole = b"".join(audio)
    for cut in range(len(body)):
        spoken = read(framing, body[:cut])
        assert spoken.ended == ""
        assert whole.startswith(spoken.audio)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"garbage\n\n", b": a comment\n\n"])
def test_events_with_bytes_behind_them(end: bytes) -> None:
    spoken = of_events(framed("events", [b"abc"]) + end)
    assert (spoken.audio, spoken.ended) == (b"abc", "done")


def test_messages_with_bytes_behind_them() -> None:
    spoken = of_messages(framed("messages", [b"abc"]) + b"\x7fgarbage")
    assert (spoken.audio, spoken.ended) == (b"abc", "done")


def test_an_event_is_at_most_64_kib() -> None:
    piece = Piece(bytes(PIECE_BYTES), 2**53, 2**53, 2**53)
    assert EVENT_BYTES - 512 < len(ServerSentEvents().piece(piece)) <= EVENT_BYTES


def test_nothing_from_outside_can_be_an_event_or_a_field() -> None:
    about = About("audio/x\n\ndata: {}", "o\rther", None, None, None, Cached.HIT, "c", None)
    body = b"".join(frames(ServerSentEvents(), [b"\n\nevent: done\n"], ERROR, about))
    assert [each.event for each in events(body)] == ["metadata", "audio", "error"]
    assert all(len(part.splitlines()) == 2 for part in body.decode().split("\n\n")[:-1])


@each_framing
def test_a_sentence_is_announced_before_its_audio(framing: str) -> None:
    framer = FRAMINGS[framing][0]()
    body = framer.begin(ABOUT) + framer.sentence(Sentence(1, 10, 25, 400)) + framer.piece(Piece(b"a", 0, 400, 5))
    assert [each["index"] for each in read(framing, body).sentences] == [1]
    if framing == "events":
        assert json.loads(events(body)[1].data) == {"index": 1, "text_start": 10, "text_end": 25, "offset_ms": 400}


@pytest.mark.parametrize(
    ("number", "written"), [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02"), (1 << 32, "8080808010")]
)
def test_varints(number: int, written: str) -> None:
    assert varint(number).hex() == written


ACCEPTED = [
    ("*/*", Way.RAW),
    ("audio/wav;q=0.5, text/html", Way.RAW),
    ("application/octet-stream", Way.RAW),
    ("text/event-stream", Way.EVENTS),
    ("Text/Event-Stream; charset=utf-8", Way.EVENTS),
    ("text/event-stream, */*", Way.EVENTS),
    ("*/*, text/event-stream", Way.EVENTS),
    ("application/x-protobuf", Way.PROTOBUF),
    ("application/protobuf", Way.PROTOBUF),
    ("application/x-protobuf;q=0.4, text/event-stream;q=0.5, audio/*;q=0.3", Way.EVENTS),
    ("audio/*, text/event-stream", Way.RAW),
    ("text/event-stream, audio/*", Way.EVENTS),
    ("text/event-stream;q=0, audio/*;q=0.1", Way.RAW),
    ("text/event-stream;q=0", None),
    ("text/html", None),
    ("text/*", None),
    ("", None),
    (",;,;q=", None),
]


@pytest.mark.parametrize(("accept", "expected"), ACCEPTED)
def test_the_way_that_is_accepted(accept: str, expected: Way | None) -> None:
    assert way(accept) is expected


@given(st.text(max_size=60))
def test_any_accept_is_read(accept: str) -> None:
    assert way(accept) in (None, *Way)
