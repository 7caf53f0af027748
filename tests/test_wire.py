"""Answers read whole, byte by byte and cut anywhere: the cuts change nothing, and nothing that can be read twice is read."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.clusters.wire import MAX_HEAD_BYTES, MAX_HEADERS, MAX_INTERIM, Malformed, Reading, Stage, request, target
from tests.scripted_upstream import chunk, chunked, head, whole

#: The verdict, and what there was of it: malformed, or status, body and whether it ended.
Read = str | tuple[int, bytes, Stage, bool]


def read(pieces: list[bytes]) -> tuple[Read, bytes]:
    """What an answer that comes in these pieces is, and all of its body that was given before that was known."""
    reading, body = Reading(), b""
    for piece in pieces:
        try:
            body += reading.feed(piece)
        except Malformed:
            return "malformed", body
    return (reading.status, body, reading.stage, reading.framed), body


def cut(answer: bytes, at: list[int]) -> Iterator[bytes]:
    ends = sorted({each % (len(answer) + 1) for each in at} | {len(answer)})
    for begin, end in zip([0, *ends], ends, strict=False):
        if end > begin:
            yield answer[begin:end]


BODY = bytes(range(256))
LENGTH = f"Content-Length: {len(BODY)}"
CHUNKED = "Transfer-Encoding: chunked"
WHOLE = (200, BODY, Stage.END, True)
ANSWERS: dict[str, tuple[bytes, Read]] = {
    "with a length": (whole(BODY), WHOLE),
    "in chunks that are alike": (chunked(*[BODY] * 5), (200, BODY * 5, Stage.END, True)),
    "in chunks with the same extension": (
        head("200 OK", CHUNKED) + (b"100;a=b\r\n" + BODY + b"\r\n") * 3 + b"0\r\n\r\n", (200, BODY * 3, Stage.END, True)),
    "in chunks of which the last has no end": (
        head("200 OK", CHUNKED) + chunk(BODY) * 3 + b"100\r\n" + BODY + b"xx", "malformed"),
    "of a chunk behind the last": (chunked(*[BODY] * 3)[:-2] + chunk(BODY), "malformed"),
    "chunked": (chunked(BODY[:9], BODY[9:]), WHOLE),
    "chunked, with an extension and a trailer": (
        head("200 OK", CHUNKED) + b"100;a=b\r\n" + BODY + b"\r\n0\r\nX: y\r\n\r\n", WHOLE),
    "behind interim answers": (head("100 Continue") + head("103 Early Hints", "Link: x") + whole(BODY), WHOLE),
    "behind as many as may be": (head("102 Processing") * MAX_INTERIM + whole(BODY), WHOLE),
    "behind too many": (head("102 Processing") * (MAX_INTERIM + 1) + whole(BODY), "malformed"),
    "until the end of the connection": (head("200 OK") + BODY, (200, BODY, Stage.BODY, False)),
    "of no bytes": (head("200 OK", "Content-Length: 0"), (200, b"", Stage.END, True)),
    "cut short": (head("200 OK", LENGTH) + BODY[:9], (200, BODY[:9], Stage.BODY, True)),
    "chunked, cut short": (head("200 OK", CHUNKED) + chunk(BODY), (200, BODY, Stage.BODY, True)),
    "without a body": (head("204 No Content"), (204, b"", Stage.END, False)),
    "101": (head("101 Switching Protocols", "Upgrade: x", "Connection: upgrade"), (101, b"", Stage.END, False)),
    "chunked in HTTP/1.0": (
        b"HTTP/1.0 200 OK\r\n" + CHUNKED.encode() + b"\r\n\r\n" + chunk(BODY) + chunk(b""), (200, BODY, Stage.END, False)),
    "and more": (whole(BODY) + b"x", "malformed"),
    "and another": (chunked(BODY) + whole(BODY), "malformed"),
    "of as many headers as may be": (
        head("200 OK", *(f"X-{n}: y" for n in range(MAX_HEADERS - 1)), "Content-Length: 0"), (200, b"", Stage.END, True)),
    "of a header too many": (head("200 OK", *(f"X-{n}: y" for n in range(MAX_HEADERS + 1))), "malformed"),
    "of a long header": (head("200 OK", "X: " + "y" * 8190), "malformed"),
    "of a long reason": (head("200 " + "y" * 8190), "malformed"),
    "of many long headers": (head("200 OK", *["X: " + "y" * 8000] * 5), "malformed"),
    **{
        f"malformed: {lines!r}": (b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n\r\n" + BODY, "malformed")
        for lines in [
            b"Content-Length: 9\r\nContent-Length: 9", b"Content-Length: 9, 9", b"Content-Length: +9",
            b"Content-Length: 0x9", b"Content-Length: 9\r\nTransfer-Encoding: chunked", b"Content-Length : 9",
            b"Content-Length:", b"X: a\r\n b", b"X: a\0b", b"X: a\x01b", b"X: a\rb", b"X", b": x",
            b"X: a\nY: b", b"Content-Length: 99999999999999999999",
        ]
    },
    **{
        f"malformed: {line!r}": (line + b"\r\nContent-Length: 0\r\n\r\n", "malformed")
        for line in [b"HTTP/1.1 99 OK", b"HTTP/1.1 2000 OK", b"HTTP/2.0 200 OK", b"HTTP/1.2 200 OK", b"HTTP/1.1  200 OK",
                     b"HTTP/1.1 200 O\0K", b" HTTP/1.1 200 OK", b"\r\nHTTP/1.1 200 OK", b"SSH-2.0", b"http/1.1 200 OK"]
    },
    **{
        f"malformed chunks: {chunks!r}": (head("200 OK", CHUNKED) + chunks + b"0\r\n\r\n", "malformed")
        for chunks in [b"3 \r\nabc\r\n", b"3\nabc\r\n", b"0x3\r\nabc\r\n", b"-3\r\nabc\r\n", b"3\r\nabcd\r\n", b"3\r\nabc",
                       b"\r\n", b"3;a\nb\r\nabc\r\n", b"xyz\r\n", b"ffffffffffffffffff\r\n", b"3\r\nabc\n"]
    },
}  # fmt: skip


@pytest.mark.parametrize(("answer", "expected"), ANSWERS.values(), ids=ANSWERS.keys())
def test_an_answer_is_the_same_whole_and_byte_by_byte(answer: bytes, expected: Read) -> None:
    assert read([answer])[0] == expected
    assert read([bytes([each]) for each in answer])[0] == expected


@given(st.sampled_from(list(ANSWERS.values())), st.lists(st.integers(0, 1 << 16), max_size=8))
def test_how_it_is_cut_changes_nothing(answer: tuple[bytes, Read], at: list[int]) -> None:
    assert read(list(cut(answer[0], at)))[0] == answer[1]


@given(
    st.sampled_from(list(ANSWERS.values())),
    st.integers(0, 1 << 16),
    st.binary(max_size=4),
    st.lists(st.integers(0, 1 << 16)),
)
def test_a_spoilt_answer_is_the_same_however_it_is_cut(
    answer: tuple[bytes, Read], where: int, with_these: bytes, at: list[int]
) -> None:
    """Bytes of an answer are overwritten. Its verdict does not hang on how it is cut, nor what is read of its body."""
    raw = answer[0]
    where %= len(raw)
    spoilt = raw[:where] + with_these + raw[where + len(with_these) :]
    (at_once, body), (in_pieces, heard) = read([spoilt]), read(list(cut(spoilt, at)))
    if at_once == "malformed":
        assert in_pieces == "malformed"
    elif in_pieces == "malformed":  # an end that was followed by an empty line, which llhttp passes over in one go
        assert spoilt.endswith((b"\r", b"\n"))
        assert heard == body
    else:
        assert in_pieces == at_once


#: What a cluster might send in a packet: chunks that are alike, others, and parts of them.
PARTS = (
    chunk(b"ab"),
    chunk(b"cd"),
    b"2\r\n",
    b"ef\r\n",
    b"ef",
    b"\r\n",
    b"02\r\ngh\r\n",
    chunk(b"long"),
    b"2",
    b"0\r\n",
    b"0\r\n\r\n",
    b"00000002\r\nij\r\n",
    b"0000000000000000002\r\nkl\r\n",
    *(b"%b\r\nmn\r\n" % line for line in (b"2;x=y", b"2 ", b" 2", b"+2", b"-2", b"0x2", b"2_", b"", b"g")),
)


@given(st.lists(st.sampled_from(PARTS), max_size=12))
def test_how_chunks_fall_into_packets_changes_nothing(packets: list[bytes]) -> None:
    opening = head("200 OK", CHUNKED)
    at_once, each = read([opening + b"".join(packets)]), read([opening, *packets])
    bytewise = read([bytes([one]) for one in opening + b"".join(packets)])
    assert each[0] == bytewise[0]
    assert at_once[0] == each[0]
    assert bytewise[1].startswith(each[1])


@pytest.mark.parametrize(
    "opening", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 ", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 9]
)
def test_a_head_without_end_is_not_held_for_ever(opening: bytes) -> None:
    assert read([opening, *[b"y" * 100] * (MAX_HEAD_BYTES // 100 - 1)])[0] != "malformed"
    assert read([opening, *[b"y" * 100] * (MAX_HEAD_BYTES // 100 + 1)])[0] == "malformed"


@pytest.mark.parametrize(
    "silent", [b"0\r\n" + b"X: y\r\n" * 129, b"1;" + b"x" * MAX_HEAD_BYTES, b"0\r\nX: " + b"y" * 8200 + b"\r\nY: z\r\n"]
)
def test_what_is_no_body_within_a_chunked_one_is_bounded(silent: bytes) -> None:
    for pieces in ([silent], [bytes([each]) for each in silent]):
        verdict, body = read([head("200 OK", CHUNKED), chunk(BODY), *pieces])
        assert (verdict, body) == ("malformed", BODY)


def test_headers_are_found_by_their_names_in_lower_case_and_joined() -> None:
    reading = Reading()
    reading.feed(head("200 OK", "X-Two: a", "x-two:b", "Content-Length:  0 "))
    assert reading.headers == {"x-two": "a, b", "content-length": "0"}
    assert reading.keeps


@pytest.mark.parametrize(
    ("answer", "keeps"),
    [
        (head("200 OK", "Content-Length: 0"), True),
        (head("200 OK", "Content-Length: 0", "Connection: close"), False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", True),
        (head("200 OK"), False),
        (head("200 OK", CHUNKED), True),
    ],
)
def test_says_whether_the_connection_may_be_used_again(answer: bytes, keeps: bool) -> None:
    reading = Reading()
    reading.feed(answer)
    assert reading.keeps is keeps


@pytest.mark.parametrize(
    ("url", "host", "port", "authority", "path"),
    [
        ("http://tts/v1/tts", "tts", 80, "tts", "/v1/tts"),
        ("https://tts.example", "tts.example", 443, "tts.example", "/"),
        ("http://tts:9001/a b", "", 0, "", ""),
        ("http://[::1]:9001/v1", "::1", 9001, "[::1]:9001", "/v1"),
        ("http://bücher.example/ü", "xn--bcher-kva.example", 80, "xn--bcher-kva.example", "/%C3%BC"),
        ("http://tts/a%20b", "tts", 80, "tts", "/a%20b"),
        ("ftp://tts/", "", 0, "", ""),
        ("http:///v1", "", 0, "", ""),
    ],
)
def test_takes_a_url_apart(url: str, host: str, port: int, authority: str, path: str) -> None:
    if not host:
        with pytest.raises(ValueError, match="host"):
            target(url)
        return
    to = target(url)
    assert (to.peer.host, to.peer.port, to.authority, to.path) == (host, port, authority, path)


@pytest.mark.parametrize("text", ["a\r\nX-Evil: b", "a\nb", "a\rb", "a\0b"])
def test_a_header_never_becomes_two(text: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        request("POST", target("http://tts/"), {"X-API-Key": text}, b"")
