"""The control channel: calls and answers, words, and every way it can break."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from edgecache.ops.channel import MAX_CALLS, MAX_FRAME_BYTES, Channel, ChannelBroken, plain
from edgecache.ops.daemon import Told

pytestmark = pytest.mark.net


async def echo(call: str, argument: Told) -> Told:
    if call == "never":
        await asyncio.Event().wait()
    if call == "fails":
        raise RuntimeError("on purpose")
    return {"call": call, **argument}


@asynccontextmanager
async def pair(heard: list[Any]) -> AsyncIterator[tuple[Channel, Channel]]:
    ours, theirs = socket.socketpair()
    one, other = (Channel(echo, lambda word, told: heard.append((word, told))) for _ in range(2))
    await one.open(ours)
    await other.open(theirs)
    try:
        yield one, other
    finally:
        await one.close()
        await other.close()


async def test_calls_are_answered_each_with_its_own_answer_and_words_are_heard_in_order() -> None:
    heard: list[Any] = []
    async with pair(heard) as (one, other):
        answers = await asyncio.gather(*(one.call("say", {"number": number}) for number in range(100)))
        assert [each["number"] for each in answers] == list(range(100))
        assert await other.call("back", {"raw": b"\x00\xff"}) == {"call": "back", "raw": b"\x00\xff"}
        for number in range(3):
            one.tell("word", {"number": number})
        await one.call("say")  # comes after them
        assert [told["number"] for _, told in heard] == [0, 1, 2]


async def test_a_call_ends_with_its_time_with_an_error_there_and_with_the_other_side() -> None:
    problems: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    async with pair([]) as (one, other):
        with pytest.raises(ChannelBroken, match="no answer"):
            await one.call("never", {}, 0.01)
        with pytest.raises(ChannelBroken, match="failed there"):
            await one.call("fails")
        waiting = asyncio.create_task(one.call("never"))
        await one.call("say")  # so that the other one is on its way
        await other.close()
        with pytest.raises(ChannelBroken, match="gone"):
            await waiting
        await one.ended.wait()
        with pytest.raises(ChannelBroken, match="ended"):
            await one.call("say")
        one.tell("nobody hears")


async def test_rule_7_calls_and_frames_are_bounded() -> None:
    async with pair([]) as (one, _):
        waiting = [asyncio.create_task(one.call("never")) for _ in range(MAX_CALLS)]
        await asyncio.sleep(0)
        with pytest.raises(ChannelBroken, match="too many"):
            await one.call("say")
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        with pytest.raises(ChannelBroken, match="too large"):
            await one.call("say", {"much": b"x" * MAX_FRAME_BYTES})
        assert (await one.call("say"))["call"] == "say"


def framed(frame: Any) -> bytes:
    content = msgspec.msgpack.encode(frame)
    return struct.pack(">I", len(content)) + content


async def test_frames_may_come_byte_by_byte() -> None:
    heard: list[Any] = []
    ours, theirs = socket.socketpair()
    channel = Channel(echo, lambda word, told: heard.append((word, told)))
    await channel.open(ours)
    with theirs:
        for byte in framed(["word", 0, "slowly", {"a": 1}]) + framed(["word", 0, "again", {}]):
            theirs.send(bytes([byte]))
            await asyncio.sleep(0)
    await channel.ended.wait()
    assert heard == [("slowly", {"a": 1}), ("again", {})]
    await channel.close()


@pytest.mark.parametrize(
    "said",
    [b"\xff\xff\xff\xff", struct.pack(">I", 3) + b"\xc1\xc1\xc1", framed("no frame"), framed([1, 2]), b"\x00"],
    ids=["too long", "no msgpack", "no array", "too few", "half a length"],
)
async def test_what_nobody_understands_ends_the_channel(said: bytes) -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(echo, lambda *_: None)
    await channel.open(ours)
    theirs.send(said)
    theirs.shutdown(socket.SHUT_WR)
    async with asyncio.timeout(60):
        await channel.ended.wait()
    theirs.close()
    await channel.close()


def test_what_is_no_plain_value_is_told_as_text() -> None:
    assert plain({"path": complex(1, 2), "raw": b"\x00", "list": (1, 2)}) == {
        "path": "(1+2j)",
        "raw": b"\x00",
        "list": (1, 2),
    }
