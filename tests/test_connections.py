"""When a connection to an upstream is used again, when it is not, and what never crosses from one exchange to the next."""

import asyncio
import socket
import ssl
import time
from contextlib import aclosing
from pathlib import Path

import pytest

from edgecache.clock import SystemClock
from edgecache.clusters import wire
from edgecache.clusters.cluster import Pool, Timeouts
from edgecache.clusters.connections import MAX_UNREAD_BYTES, Line
from edgecache.clusters.deadlines import Deadlines
from edgecache.clusters.fault import Fault, UpstreamFault
from edgecache.clusters.resolving import Resolver
from tests.redis_server import CERTIFICATE
from tests.scripted_upstream import FIN, HOLD, RST, Script, ScriptedUpstream, Step, chunk, chunked, head, whole
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


async def test_more_than_the_whole_answer_spoils_the_connection_and_not_the_answer() -> None:
    late, sent = asyncio.Event(), asyncio.Event()
    script: list[Step] = [whole(AUDIO), late, b"more", sent.set, HOLD]
    async with ScriptedUpstream(script, [whole(AUDIO)]) as upstream, opened() as lines:
        async with lines.ask("c", order(upstream.url), {}) as answer, aclosing(answer.chunks()) as chunks:
            assert await anext(chunks) == AUDIO
            late.set()
            await upstream.left()
            assert [each async for each in chunks] == []
        assert await heard(lines, upstream.url) == (AUDIO, True)
        assert [each.connection for each in upstream.requests] == [1, 2]


async def test_a_connection_that_was_closed_meanwhile_is_not_asked() -> None:
    async with ScriptedUpstream([whole(AUDIO), FIN]) as upstream, opened() as lines:
        for _ in range(3):
            assert await heard(lines, upstream.url) == (AUDIO, True)
            await upstream.left(upstream.connections)
        assert [each.connection for each in upstream.requests] == [1, 2, 3]


async def test_an_idle_connection_is_closed_after_its_time() -> None:
    async with ScriptedUpstream([whole(AUDIO)]) as upstream, opened(pool=Pool(keep_alive_s=0.05)) as lines:
        await heard(lines, upstream.url)
        assert repr(lines.board) == "<Switchboard 0 lines in use, 1 warm, 0 wait>"
        await upstream.left()
        while "0 warm" not in repr(lines.board):
            await asyncio.sleep(0)


async def test_a_refusal_that_is_there_whole_does_not_cost_the_connection() -> None:
    busy: Script = [head("503 Service Unavailable", "Content-Length: 4") + b"busy"]
    async with ScriptedUpstream(busy, [whole(AUDIO)]) as upstream, opened() as lines:
        with pytest.raises(UpstreamFault):
            await heard(lines, upstream.url)
        assert await heard(lines, upstream.url) == (AUDIO, True)
        assert [each.connection for each in upstream.requests] == [1, 1]


async def test_a_connection_that_comes_back_after_the_end_is_closed() -> None:
    async with ScriptedUpstream([whole(AUDIO)]) as upstream, opened() as lines:
        async with lines.ask("c", order(upstream.url), {}) as answer, aclosing(answer.chunks()) as chunks:
            await lines.close()
            assert [each async for each in chunks] == [AUDIO]
        await upstream.left()


async def test_whoever_reads_slowly_slows_the_upstream_down_and_not_this_edge() -> None:
    size = 32 << 20
    sent: list[bool] = []
    script: list[Step] = [head("200 OK", f"Content-Length: {size}"), bytes(size), lambda: sent.append(True)]
    async with (
        ScriptedUpstream(script) as upstream,
        opened() as lines,
        lines.ask("c", order(upstream.url), {}) as answer,
        aclosing(answer.chunks()) as chunks,
    ):
        had = len(await anext(chunks))
        for _ in range(1000):  # the upstream's own turns: it sends what it can
            await asyncio.sleep(0)
        assert not sent, "all of it is somewhere on this machine"
        more = await anext(chunks)
        assert len(more) <= MAX_UNREAD_BYTES + (1 << 20), "a read more than is held at most"
        had += len(more) + sum([len(each) async for each in chunks])
        assert had == size


async def test_room_is_given_on_and_who_leaves_the_queue_takes_none_with_him() -> None:
    go = asyncio.Event()
    script: list[Step] = [head("200 OK", CL), go, AUDIO]
    async with ScriptedUpstream(script) as upstream, opened(pool=Pool(max_per_host=1)) as lines:
        first, leaving, second = (asyncio.create_task(heard(lines, upstream.url)) for _ in range(3))
        await upstream.asked()
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
        go.set()
        assert await first == await second == (AUDIO, True)
        assert await heard(lines, upstream.url) == (AUDIO, True), "there is room again"
        assert len(upstream.requests) == 3
        assert upstream.connections == 1


async def test_room_at_one_upstream_does_not_wait_behind_another() -> None:
    async with (
        ScriptedUpstream([head("200 OK", CL), HOLD]) as slow,
        ScriptedUpstream([whole(AUDIO)]) as quick,
        opened(pool=Pool(max_per_host=1)) as lines,
    ):
        stuck = [asyncio.create_task(heard(lines, slow.url)) for _ in range(2)]
        await slow.asked()
        assert await heard(lines, quick.url) == (AUDIO, True)
        for each in stuck:
            each.cancel()
        await asyncio.wait(stuck)


# Where to.


async def test_connects_where_it_is_told_and_asks_for_the_name() -> None:
    async with ScriptedUpstream([whole(AUDIO)]) as upstream, opened() as lines:
        named = order(f"http://nowhere.invalid:{upstream.port}")
        async with lines.ask("c", named, {}, "127.0.0.1") as answer, aclosing(answer.chunks()) as chunks:
            assert [each async for each in chunks] == [AUDIO]
        assert upstream.requests[0].headers["host"] == f"nowhere.invalid:{upstream.port}"


async def test_tries_a_names_other_addresses() -> None:
    async def look_up(host: str, port: int) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in ("127.0.0.2", "127.0.0.1")]

    resolver = Resolver(300, SystemClock(), look_up, allow_networks=("127.0.0.0/8",))
    async with ScriptedUpstream([whole(AUDIO)]) as upstream, opened(resolver=resolver) as lines:
        assert await heard(lines, f"http://tts.invalid:{upstream.port}") == (AUDIO, True)


#: Ended years ago; else it would do.
EXPIRED = CERTIFICATE.with_name("expired.pem")


def presenting(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def trusting(*certificates: Path) -> ssl.SSLContext | None:
    """Only these; None: as this machine does."""
    if not certificates:
        return None
    return ssl.create_default_context(cafile=str(certificates[0]))


async def test_asks_over_tls_whom_it_trusts_and_keeps_the_connection() -> None:
    async with ScriptedUpstream([whole(AUDIO)], tls=presenting(CERTIFICATE)) as upstream:
        async with opened(tls=trusting(CERTIFICATE)) as lines:
            for _ in range(2):
                assert await heard(lines, upstream.url) == (AUDIO, True)
        assert [each.connection for each in upstream.requests] == [1, 1]


@pytest.mark.parametrize(
    ("certificate", "host", "trusted"),
    [
        pytest.param(CERTIFICATE, "127.0.0.1", (), id="unknown to this machine"),
        pytest.param(CERTIFICATE, "localhost", (CERTIFICATE,), id="for another name"),
        pytest.param(EXPIRED, "127.0.0.1", (EXPIRED,), id="expired"),
        pytest.param(CERTIFICATE, "127.0.0.1", (EXPIRED,), id="of another authority"),
    ],
)
async def test_tells_nothing_to_whom_it_can_not_trust(certificate: Path, host: str, trusted: tuple[Path, ...]) -> None:
    async with ScriptedUpstream([whole(AUDIO)], tls=presenting(certificate)) as upstream:
        async with opened(tls=trusting(*trusted)) as lines:
            with pytest.raises(UpstreamFault, match="TLS handshake or certificate refused") as met:
                await heard(lines, f"https://{host}:{upstream.port}")
            assert met.value.fault is Fault.UNTRUSTED
        assert upstream.requests == []


@pytest.mark.parametrize(
    ("last", "ended"), [(chunk(b""), "whole"), (b"", "stalled")], ids=["and its end", "and no more"]
)
async def test_what_lies_in_the_socket_is_heard_though_the_time_has_only_just_passed(last: bytes, ended: str) -> None:
    """This process stands still until shortly after the time, while it reads something else: the line's timer comes before
    its bytes are read, and is hardly late; what was said meanwhile counts, and from then on the time begins anew."""
    loop, parts = asyncio.get_running_loop(), list[bytes]()
    wake, woken = socket.socketpair()
    with wake, woken, socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)

        def take(part: bytes) -> None:
            parts.append(part)
            if len(parts) == 1:
                loop.call_later(0.5, wake.send, b"now")

        def stand_still() -> None:
            theirs.send(chunk(b"two") + last)
            loop.remove_reader(woken)
            time.sleep(0.55)

        async def hear() -> str:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            async with lines.ask("c", order(url), {}) as answer:
                try:
                    await answer.pour(take)
                except UpstreamFault as fault:
                    return fault.fault.value
            return "whole"

        loop.add_reader(woken, stand_still)
        async with opened(Timeouts(10, 10, between_bytes_s=1.0, total_s=20)) as lines:
            hearing = asyncio.create_task(hear())
            theirs, _ = await loop.sock_accept(listening)
            with theirs:
                await loop.sock_recv(theirs, 4096)
                theirs.send(head("200 OK", "Content-Type: audio/wav", "Transfer-Encoding: chunked") + chunk(b"one"))
                assert await hearing == ended
    assert parts == [b"one", b"two"]


@pytest.mark.parametrize("over_s", [0.0, 0.05, 1.0])
async def test_what_was_said_before_it_is_waited_for_is_heard_though_its_time_is_over(over_s: float) -> None:
    """This process stands still between asking and waiting."""
    loop, parts = asyncio.get_running_loop(), list[bytes]()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        peer = wire.target(f"http://127.0.0.1:{listening.getsockname()[1]}/").peer
        transport, line = await loop.create_connection(lambda: Line(peer, lambda _: None), peer.host, peer.port)
        with listening.accept()[0] as theirs:
            line.ask(b"GET / HTTP/1.1\r\n\r\n")
            theirs.send(head("200 OK", CL))
            assert (await line.head(loop.time() - over_s)).status == 200
            theirs.send(AUDIO)
            await line.pour(parts.append, Deadlines(Timeouts(total_s=1.0), loop.time() - 1.0 - over_s))
            assert b"".join(parts) == AUDIO
            line.drop()
            await asyncio.sleep(0)
    assert transport.is_closing()
