"""Clusters that hang, that say too much, and that say it faster than it is heard (faults.md rows 17 and 19 to 22)."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import aiohttp
import pytest

from edgecache.delivery.limits import RequestLimits
from edgecache.demo import tone
from edgecache.fill.limits import FillLimits
from tests.attention import attention
from tests.houses import PATIENT, UNMEASURED, Heard, house, running, settings
from tests.scripted_upstream import HOLD, Script, ScriptedUpstream, Step, chunk, closed_port, head, whole
from tests.test_cluster_faults import region

ASKED = {"text": "A cluster that hangs"}
WAV = tone.audio(ASKED)
STREAMED = head("200 OK", "Content-Type: audio/wav", "Transfer-Encoding: chunked")
CONNECT_S, BETWEEN_S = 1.0, 0.3
#: What a loop takes to come to what is due, in time in which it ran.
AT_ONCE_S = 0.3
MIB = 1 << 20


async def test_17_a_stall_is_over_after_its_time_and_no_other_cluster_goes_on_with_it() -> None:
    timeouts = replace(PATIENT, between_bytes_s=BETWEEN_S)
    stalls: Script = [STREAMED + chunk(WAV[: len(WAV) // 2]), HOLD]
    async with (
        ScriptedUpstream(stalls, [whole(WAV)]) as near,
        ScriptedUpstream([whole(WAV)], probe_script=[HOLD]) as far,
        running(settings(near.url, far.url, probing=UNMEASURED, timeouts=timeouts)) as node,
        aiohttp.ClientSession() as client,
    ):
        loop, url = asyncio.get_running_loop(), f"http://127.0.0.1:{node.port}/v1/tts"
        began_s = loop.time()
        async with client.post(url, json=ASKED) as answer, attention() as paid:
            heard = await Heard.of(answer, ASKED)
        assert loop.time() - began_s > BETWEEN_S - 0.01, "not sooner; timers have ticks"
        assert (heard.status, heard.whole, len(heard.body)) == (200, False, len(WAV) // 2)
        assert paid.took_s < BETWEEN_S + AT_ONCE_S
        assert (len(near.requests), len(far.requests)) == (1, 0)
        assert (len(node._memory), node.fills.held_bytes) == (0, 0)
        async with client.post(url, json=ASKED) as answer:
            assert (await Heard.of(answer, ASKED)).whole


async def test_19_a_cluster_that_is_faster_than_all_who_listen_is_heard_out_and_held_once() -> None:
    """Twelve MiB, eight listeners that read nothing: the fill ends without them, and one copy is held for all."""
    size, listeners = 12 * MIB, 8
    knobs = {"stall_after_bytes": 1000}
    async with house(knobs=knobs, limits=RequestLimits(write_stall_s=60.0), timeouts=PATIENT) as home:
        body = b'{"text":"Much to hear","demo":{"bytes":%d}}' % size
        with ExitStack() as left:
            for _ in range(listeners):
                slow = left.enter_context(socket.socket())
                slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                slow.setblocking(False)
                await asyncio.get_running_loop().sock_connect(slow, ("127.0.0.1", home.node.port))
                slow.send(b"POST /v1/tts HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            while home.node.fills.joined < listeners - 1:
                await asyncio.sleep(0)
            home.origin.release()
            while home.node.fills.under_way:
                await asyncio.sleep(0)
                assert home.node.fills.held_bytes <= size
            assert home.node.fills.held_bytes == size
            assert (home.origin.counters.syntheses, home.node.fills.broken) == (1, 0)
        while home.node.fills.held_bytes:
            await asyncio.sleep(0)


async def test_20_a_body_without_end_is_broken_off_at_the_bound_and_the_cluster_is_not_blamed() -> None:
    piece, pieces, most = 64 << 10, 1000, MIB
    sent = 0

    def count() -> None:
        nonlocal sent
        sent += piece

    goes_on: list[Step] = [count, chunk(bytes(piece))]
    endless = [head("200 OK", "Content-Type: audio/aac", "Transfer-Encoding: chunked"), *goes_on * pieces]
    async with (
        ScriptedUpstream(endless) as near,
        running(settings(near.url, fills=FillLimits(max_rendering_bytes=most), timeouts=PATIENT)) as node,
        aiohttp.ClientSession() as client,
    ):
        async with client.post(f"http://127.0.0.1:{node.port}/v1/tts", json=ASKED) as answer:
            heard, broken = 0, False
            try:
                while came := await answer.content.readany():
                    heard += len(came)
            except aiohttp.ClientPayloadError:
                broken = True
        assert broken
        assert 0 < heard <= most
        await near.left(1)
        assert sent < piece * pieces, "it was hung up on"
        (upstream,) = node._fleet.status()
        assert (upstream.state, upstream.failures, len(node._memory)) == ("up", 0, 0)


@contextmanager
def deaf_port() -> Iterator[int]:
    """A port at which connections wait to be accepted, and the queue is full: a SYN gets no answer, as in a black hole."""
    with ExitStack() as left:
        listening = left.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        port = listening.getsockname()[1]
        for _ in range(8):
            waiting = left.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        yield port


@contextmanager
def refusing_port() -> Iterator[int]:
    yield closed_port()


@pytest.mark.parametrize(
    ("port", "within_s", "fault"),
    [(refusing_port, 0.0, "can't connect (ECONNREFUSED)"), (deaf_port, CONNECT_S, "can't connect in time")],
    ids=["21: refused", "21 and 22: no answer to a SYN, accept queue full"],
)
async def test_21_who_can_not_be_connected_to_costs_the_connect_time_out_at_most(
    port: type, within_s: float, fault: str
) -> None:
    timeouts = replace(PATIENT, connect_s=CONNECT_S)
    with port() as near:
        async with (
            ScriptedUpstream([whole(WAV)], probe_script=[HOLD]) as far,
            region(f"http://127.0.0.1:{near}", far.url, timeouts=timeouts, probing=UNMEASURED) as it,
        ):
            async with attention() as paid:
                assert (await it.say(ASKED["text"])).status == 200
            assert paid.took_s < within_s + AT_ONCE_S
            assert (await it.status())["fills"]["retries"] == 1, "it was asked, and then the other"
            assert it.node._fleet.status()[0].last_fault.endswith(fault)
