"""What is read as a reply to a GET, however its bytes come, and what ends the reading."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecache.store.connections import Refusal
from edgecache.store.replies import MAX_LINE_BYTES, ROOM_BYTES, Replies, Reply, Unreadable
from tests.redis_server import bulk

MAX_VALUE_BYTES = 300_000
LARGEST = 5_000_000


def told(replies: list[Reply]) -> list[object]:
    """Replies that can be compared."""
    return [
        bytes(each) if isinstance(each, memoryview) else each.code if isinstance(each, Refusal) else each
        for each in replies
    ]


def received(replies: Replies, part: bytes) -> list[Reply]:
    """What these bytes come to; they are received as there is room for them."""
    found: list[Reply] = []
    while part and not (found and isinstance(found[-1], Unreadable)):
        room = replies.room()
        count = min(len(room), len(part))
        room[:count] = part[:count]
        found += [bytes_kept(each) for each in replies.received(count)]
        part = part[count:]
    return found


def bytes_kept(reply: Reply) -> Reply:
    return memoryview(bytes(reply)) if isinstance(reply, memoryview) else reply


def fed(*parts: bytes) -> tuple[list[object], bool]:
    """What these bytes come to, in these parts and up to the end, and whether another reply has begun."""
    replies, found = Replies(MAX_VALUE_BYTES), []
    for part in parts:
        found += told(received(replies, part))
        if found and isinstance(found[-1], Unreadable):
            break
    return found, replies.begun


def in_single_bytes(sent: bytes) -> list[bytes]:
    return [sent[at : at + 1] for at in range(len(sent))]


READ: list[tuple[bytes, list[object]]] = [
    (b"", []),
    (bulk(b"hello"), [b"hello"]),
    (bulk(b""), [b""]),
    (b"$-1\r\n", [None]),
    (bulk(b"$5\r\n\r\n\r\n") + bulk(b"\r"), [b"$5\r\n\r\n\r\n", b"\r"]),
    (bulk(b"a") + b"$-1\r\n" + bulk(b"bc"), [b"a", None, b"bc"]),
    (bulk(bytes(MAX_VALUE_BYTES)), [bytes(MAX_VALUE_BYTES)]),
    (b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", ["OOM"]),
    (b"-WRONGTYPE Operation against a key\r\n" + bulk(b"a"), ["WRONGTYPE", b"a"]),
    (b"-LOADING\r\n-NOAUTH \r\n-MOVED 1 127.0.0.1:1\r\n", ["LOADING", "NOAUTH", "MOVED"]),
    (b"-\r\n-\xff\xfe\r\n-tts:secret\r\n- OOM\r\n", ["an error"] * 4),
    (b"-" + b"E" * (MAX_LINE_BYTES - 3) + b"\r\n", ["an error"]),
]

#: What ends the reading, after how many proper replies.
ENDS: list[tuple[str, bytes, int]] = [
    ("a number", bulk(b"a") + b":1\r\n" + bulk(b"b"), 1),
    ("a word", b"+OK\r\n", 0),
    ("a list", b"*1\r\n$1\r\na\r\n", 0),
    ("a list of thousands of millions", b"*4000000000\r\n", 0),
    ("a notice", b">1\r\n+a\r\n", 0),
    ("HTTP", b"HTTP/1.1 400 Bad Request\r\n\r\n", 0),
    ("noise", b"\x00\xff\x00\xff", 0),
    ("an empty line", b"\r\n", 0),
    ("no length", b"$\r\n\r\n", 0),
    ("a length below zero", b"$-5\r\n", 0),
    ("a length with a sign", b"$+5\r\nhello\r\n", 0),
    ("a length with a gap", b"$ 5\r\nhello\r\n", 0),
    ("a length with an underscore", b"$1_0\r\n0123456789\r\n", 0),
    ("a length in hex", b"$0x1\r\na\r\n", 0),
    ("a length beyond all", b"$99999999999999999999\r\n", 0),
    ("a length of hundreds of digits", b"$" + b"9" * 900 + b"\r\n", 0),
    ("one byte too large", bulk(bytes(MAX_VALUE_BYTES + 1)), 0),
    ("longer than it says", bulk(b"a") + b"$3\r\nhello\r\n", 1),
    ("shorter than it says", b"$6\r\nhello\r\n$1\r\na\r\n", 0),
    ("an endless error", b"-" + b"x" * 70_000 + b"\r\n", 0),
    ("an endless length", b"$" + b"1" * 70_000, 0),
]


@pytest.mark.parametrize(("sent", "replies"), READ, ids=lambda each: repr(each)[:30])
def test_reads_a_string_nothing_or_an_error_whole_and_byte_by_byte(sent: bytes, replies: list[object]) -> None:
    assert fed(sent) == (replies, False)
    assert fed(*in_single_bytes(sent)) == (replies, False)


@pytest.mark.parametrize(("sent", "before"), [row[1:] for row in ENDS], ids=[row[0] for row in ENDS])
def test_whatever_else_comes_ends_the_reading(sent: bytes, before: int) -> None:
    for parts in ([sent], in_single_bytes(sent)):
        replies, _ = fed(*parts)
        assert len(replies) == before + 1
        assert isinstance(replies[-1], Unreadable)
        assert replies[-1].too_large == (b"$9" in sent or len(sent) > MAX_VALUE_BYTES)


@pytest.mark.parametrize("cut", range(1, len(bulk(b"hello"))))
def test_a_part_of_a_reply_is_none(cut: int) -> None:
    assert fed(bulk(b"hello")[:cut]) == ([], True)
    assert fed(bulk(b"a") + bulk(b"hello")[:cut]) == ([b"a"], True)


@given(
    st.lists(st.one_of(st.none(), st.binary(max_size=80), st.just("OOM")), max_size=12),
    st.lists(st.integers(0, 1200), max_size=12),
)
@settings(deadline=None)
def test_replies_are_the_same_however_they_are_cut(sent: list[object], cuts: list[int]) -> None:
    whole = b"".join(
        b"$-1\r\n" if each is None else bulk(each) if isinstance(each, bytes) else b"-%s no\r\n" % str(each).encode()
        for each in sent
    )
    at = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    assert fed(*(whole[begin:end] for begin, end in pairwise(at))) == (sent, False)


@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([b"$", b"-1", b"\r\n", b"3", b"abc"])), max_size=20))
@settings(deadline=None)
def test_any_bytes_are_read_the_same_way_whole_and_byte_by_byte(parts: list[bytes]) -> None:
    whole = b"".join(parts)
    once, begun = fed(whole)
    for way in (parts, in_single_bytes(whole)):
        replies, begun_too = fed(*way)
        assert replies == once
        assert begun_too == begun or isinstance(once[-1], Unreadable)


def test_rule_7_room_grows_with_what_came_and_not_with_what_is_claimed() -> None:
    replies = Replies(LARGEST)
    assert received(replies, b"$%d\r\nabc" % LARGEST) == []
    assert repr(replies) == f"<Replies 13 bytes begun, {LARGEST - 1} lacking, room for {ROOM_BYTES}>"
    came = 3
    while came < LARGEST:
        assert int(repr(replies).split()[-1][:-1]) <= max(ROOM_BYTES, 4 * came)
        part = min(100_000, LARGEST - came)
        assert received(replies, bytes(part)) == []
        came += part
    [whole] = received(replies, b"\r\n")
    assert isinstance(whole, memoryview)
    assert len(whole) == LARGEST
    assert told(received(replies, bulk(b"a"))) == [b"a"]
    assert repr(replies) == f"<Replies 0 bytes begun, 0 lacking, room for {ROOM_BYTES}>"
    assert fed(b"$%d\r\n" % (MAX_VALUE_BYTES + 1)) == (
        [Unreadable("a value beyond the bound", too_large=True)],
        False,
    )


def test_a_value_is_not_copied_and_stays_until_more_is_received() -> None:
    replies = Replies(MAX_VALUE_BYTES)
    sent = bulk(b"first") + bulk(b"second") + bulk(b"third")[:7]
    room = replies.room()
    room[: len(sent)] = sent
    first, second = replies.received(len(sent))
    assert isinstance(first, memoryview)
    assert first.obj is room.obj
    assert told([first, second]) == [b"first", b"second"]
    assert told(received(replies, bulk(b"third")[7:])) == [b"third"]
