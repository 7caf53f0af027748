"""When a connection to an upstream is used again, when it is not, and what never crosses from one exchange to the next."""

import asyncio
from contextlib import aclosing

import pytest

from edgecache.clusters.fault import Fault, UpstreamFault
from tests.scripted_upstream import FIN, HOLD, RST, Script, ScriptedUpstream, Step, chunked, head, whole
from tests.test_upstream import AUDIO, CL, heard, opened, order


async def test_a_connection_is_used_again_after_a_whole_answer() -> None:
    async with ScriptedUpstream([whole(AUDIO)], [chunked(AUDIO)], [whole(AUDIO)]) as upstream, opened() as lines:
        for _ in range(3):
            assert await heard(lines, upstream.url) == (AUDIO, True)
        assert [each.connection for each in upstream.requests] == [1, 1, 1]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([head("200 OK", CL), AUDIO[:9], HOLD], id="left in mid-body"),
        pytest.param([head("500 Oops", CL), AUDIO[:9], HOLD], id="an error's body"),
        pytest.param([head("200 OK", CL, "Content-Encoding: br"), AUDIO[:9], HOLD], id="an encoded body"),
    ],
)
async def test_a_connection_is_closed_when_its_answer_was_not_read_to_its_end(script: Script) -> None:
    async with ScriptedUpstream(script, [whole(AUDIO)]) as upstream, opened() as lines:
        try:
            async with lines.ask("c", order(upstream.url), {}) as answer, aclosing(answer.chunks()) as chunks:
                await anext(chunks)
        except UpstreamFault:
            pass
        await upstream.left()
        assert await heard(lines, upstream.url) == (AUDIO, True)
        assert [each.connection for each in upstream.requests] == [1, 2]


async def after_poison(poison: bytes) -> tuple[bytes, bool]:
    """What the second exchange gives when these bytes came between the two."""
    late, sent = asyncio.Event(), asyncio.Event()
    first: list[Step] = [whole(AUDIO), late, poison, sent.set]
    async with ScriptedUpstream(first, [whole(AUDIO)]) as upstream, opened() as lines:
        assert await heard(lines, upstream.url) == (AUDIO, True)
        late.set()
        await sent.wait()
        for _ in range(5):  # until the client's side of the loop has read it
            await asyncio.sleep(0)
        return await heard(lines, upstream.url)


@pytest.mark.parametrize(
    "poison",
    [whole(b"poison"), head("200 OK", CL) + b"pois", head("102 Processing"), b"HTTP/1.1 200 OK\r\nX", b"poison"],
    ids=["an answer", "half an answer", "an interim answer", "half a head", "garbage"],
)
async def test_bytes_that_come_unasked_never_answer_the_next_request(poison: bytes) -> None:
    assert await after_poison(poison) == (AUDIO, True)


@pytest.mark.parametrize("end", [FIN, RST], ids=["closed", "reset"])
async def test_asks_once_more_when_an_idle_connection_had_died(end: Step) -> None:
    async with ScriptedUpstream([whole(AUDIO)], [end], [whole(AUDIO)]) as upstream, opened() as lines:
        await heard(lines, upstream.url)
        assert await heard(lines, upstream.url) == (AUDIO, True)
        assert [each.connection for each in upstream.requests] == [1, 1, 2], "the second try is a new connection's"


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        pytest.param([b"HTTP/1.1 200 OK\r\nX", FIN], Fault.BROKEN, id="after a part of the head"),
        pytest.param([head("200 OK", CL), FIN], Fault.BROKEN, id="after the head"),
        pytest.param([head("500 Oops", "Content-Length: 0")], Fault.FAILED, id="an answer"),
    ],
)
async def test_asks_only_once_when_an_answer_had_begun(script: Script, fault: Fault) -> None:
    async with ScriptedUpstream([whole(AUDIO)], script, [whole(AUDIO)]) as upstream, opened() as lines:
        await heard(lines, upstream.url)
        with pytest.raises(UpstreamFault) as met:
            await heard(lines, upstream.url)
        assert met.value.fault is fault
        assert len(upstream.requests) == 2


async def test_does_not_ask_a_third_time() -> None:
    async with ScriptedUpstream([whole(AUDIO)], [FIN], [FIN], [whole(AUDIO)]) as upstream, opened() as lines:
        await heard(lines, upstream.url)
        with pytest.raises(UpstreamFault) as met:
            await heard(lines, upstream.url)
        assert (met.value.fault, len(upstream.requests)) == (Fault.BROKEN, 3)


async def test_being_cancelled_closes_the_connection() -> None:
    async with ScriptedUpstream([head("200 OK", CL), AUDIO[:9], HOLD]) as upstream, opened() as lines:
        task = asyncio.create_task(heard(lines, upstream.url))
        await upstream.asked()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await upstream.left()


async def test_nothing_is_left_after_close() -> None:
    before = asyncio.all_tasks()
    async with ScriptedUpstream([whole(AUDIO)]) as upstream:
        async with opened() as lines:
            await heard(lines, upstream.url)
        await upstream.left()
    assert asyncio.all_tasks() == before
