"""bench.delivery's own eyes: bodies and frames in any pieces, and what a player makes of arrivals."""

from collections.abc import Iterator

import pytest

from bench.delivery.framing import Body, Broken, Frames, Got, text_frame
from bench.delivery.listening import SECOND_BYTES, Told
from bench.delivery.playing import Listened, quantile

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\n"
PLAIN = HEAD + b"Content-Length: 10\r\n\r\n" + b"0123456789"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"4\r\n01\r\n\r\n6\r\n456789\r\n0\r\n\r\n"
TEXT = b'{"type":"synthesis_complete"}'
FRAMES = bytes([0x82, 3]) + b"abc" + bytes([0x82, 126]) + (300).to_bytes(2, "big") + b"d" * 300
FRAMES += bytes([0x82, 127]) + (70_000).to_bytes(8, "big") + b"e" * 70_000 + bytes([0x81, len(TEXT)]) + TEXT


def pieces(content: bytes, size: int) -> Iterator[bytes]:
    return (content[at : at + size] for at in range(0, len(content), size))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(("answer", "wire_bytes"), [(PLAIN, 10), (CHUNKED, 25)], ids=["with a length", "in chunks"])
def test_it_counts_what_is_in_a_body(answer: bytes, wire_bytes: int, size: int) -> None:
    body = Body()
    assert sum(body.feed(piece) for piece in pieces(answer, size)) == 10
    assert (body.over, body.wire_bytes) == (True, wire_bytes)


def test_a_body_is_not_over_before_its_end_and_a_refusal_is_none() -> None:
    body = Body()
    body.feed(CHUNKED[:-5])
    assert not body.over
    with pytest.raises(Broken, match="503"):
        Body().feed(b"HTTP/1.1 503 Busy\r\n\r\n")


@pytest.mark.parametrize("size", [1, 5, 4096, 100_000])
def test_it_counts_what_is_in_frames(size: int) -> None:
    frames = Frames()
    found = [each for piece in pieces(FRAMES, size) for each in frames.feed(piece)]
    assert sum(int(what) for got, what in found if got is Got.AUDIO) == 70_303
    assert [what for got, what in found if got is Got.TEXT] == [TEXT]
    with pytest.raises(Broken, match="close"):
        frames.feed(bytes([0x88, 0]))


@pytest.mark.parametrize("size", [5, 200])
def test_a_text_is_sent_as_a_client_must(size: int) -> None:
    sent = text_frame(b"x" * size)
    assert sent[0] == 0x81
    assert sent[1] & 0x80
    assert sent.endswith(bytes(4) + b"x" * size)


def test_players_wait_for_what_is_late_and_run_dry_without_it() -> None:
    second = SECOND_BYTES // 10
    listened = Listened()
    listened.add(Told(1.0, [(1.2 + 0.1 * n, second) for n in range(20)], cache="miss"))  # each just in time
    assert (listened.streams, listened.dry, listened.pieces) == (1, 0, 19)
    assert listened.jitter_ms(0.99) < 1
    listened.add(Told(5.0, [(5.1, second), (5.2, second), (5.8, second)], cache="hit"))  # half a second of silence
    assert (listened.streams, listened.dry) == (2, 1)
    assert 400 < listened.jitter_ms(1.0) < 600
    assert listened.first_ms == {"miss": [pytest.approx(200)], "hit": [pytest.approx(100)]}


def test_a_quantile_is_one_of_the_values() -> None:
    assert quantile(range(100), 0.95) == 95
    assert quantile([3.0], 0.99) == 3.0
    assert quantile([], 0.5) != quantile([], 0.5)
