"""One exchange with a peer that breaks every rule: the fault that is named, and the bytes that were true."""

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from ssl import SSLContext

import pytest

from edgecache.clock import SystemClock
from edgecache.clusters.cluster import Pool, Timeouts
from edgecache.clusters.deadlines import Deadlines
from edgecache.clusters.fault import retry_after_s, status_fault
from edgecache.clusters.resolving import Resolver
from edgecache.clusters.upstream import Answer, Fault, Lines, Outgoing, UpstreamFault
from tests.scripted_upstream import (
    FIN,
    HOLD,
    RST,
    Script,
    ScriptedUpstream,
    Step,
    chunk,
    chunked,
    closed_port,
    head,
    whole,
)

#: Long against a busy machine, short against a test's patience; tests of one time-out shorten that one.
PATIENT = Timeouts(connect_s=10, first_byte_s=10, between_bytes_s=10, total_s=20)
SHORT_S = 0.3
AUDIO = b"RIFF" + bytes(96)


@asynccontextmanager
async def opened(
    timeouts: Timeouts = PATIENT,
    pool: Pool | None = None,
    resolver: Resolver | None = None,
    tls: SSLContext | None = None,
) -> AsyncIterator[Lines]:
    lines = Lines(timeouts, pool or Pool(), SystemClock(), resolver, tls)
    await lines.start()
    try:
        yield lines
    finally:
        await lines.close()


def order(url: str) -> Outgoing:
    return Outgoing(f"{url}/v1/tts", {"X-API-Key": "key"}, b'{"text":"Hello"}')


async def heard(lines: Lines, url: str) -> tuple[bytes, bool]:
    """What one exchange gave: all bytes, and whether they were framed. UpstreamFault: how it failed."""
    parts: list[bytes] = []
    async with lines.ask("c", order(url), {}) as answer:
        await answer.pour(parts.append)
        return b"".join(parts), answer.framed


async def heard_at_once(lines: Lines, url: str) -> tuple[bytes, bool]:
    """The same of an exchange that is begun, over a warm line, and hears its answer before anyone enters it."""
    assert await heard(lines, url) == WARM
    parts: list[bytes] = []

    def hear(answer: Answer) -> Callable[[bytes], None]:
        parts.append(b"")
        return parts.append

    asking = lines.ask("c", order(url), {})
    asking.begin(hear)
    async with asking as answer:
        assert parts, "entered before its head was heard"
        await answer.pour(parts.append)
        return b"".join(parts), answer.framed


WARM = (b"warm", True)
CL = "Content-Length: 100"
CHUNKED = "Transfer-Encoding: chunked"
TYPE = "Content-Type: audio/wav"
GZIPPED = gzip.compress(bytes(1000))

#: The 22 broken answers of reference/faults.md, and more. A fault, or (bytes, framed).
BROKEN: dict[str, tuple[Script, Fault | tuple[bytes, bool]]] = {
    "content-length, whole": ([whole(AUDIO)], (AUDIO, True)),
    "chunked, whole": ([chunked(AUDIO[:50], AUDIO[50:])], (AUDIO, True)),
    "content-length larger than the body": ([head("200 OK", TYPE, CL), AUDIO[:40], FIN], Fault.BROKEN),
    "content-length larger, reset": ([head("200 OK", TYPE, CL), AUDIO[:40], RST], Fault.BROKEN),
    "content-length smaller than the body": ([head("200 OK", TYPE, CL) + AUDIO + b"more", FIN], Fault.PROTOCOL),
    "chunked without a last chunk": ([head("200 OK", TYPE, CHUNKED), chunk(AUDIO), FIN], Fault.BROKEN),
    "chunked, cut in a chunk": ([head("200 OK", TYPE, CHUNKED), chunk(AUDIO)[:50], FIN], Fault.BROKEN),
    "chunked, cut in a chunk by a reset": ([head("200 OK", TYPE, CHUNKED), chunk(AUDIO)[:50], RST], Fault.BROKEN),
    "chunked, without the last line break": ([head("200 OK", TYPE, CHUNKED), chunk(AUDIO), b"0\r\n", FIN], Fault.BROKEN),
    "chunked, with a bad size": ([head("200 OK", TYPE, CHUNKED) + b"xyz\r\n" + AUDIO, FIN], Fault.PROTOCOL),
    "content-length and chunked": ([head("200 OK", CL, CHUNKED), chunk(AUDIO), chunk(b""), FIN], Fault.PROTOCOL),
    "two content-lengths": ([head("200 OK", CL, "Content-Length: 50"), AUDIO, FIN], Fault.PROTOCOL),
    "a content-length that is no number": ([head("200 OK", "Content-Length: +100"), AUDIO, FIN], Fault.PROTOCOL),
    "a garbage status line": ([b"HELLO WORLD\r\n\r\n", FIN], Fault.PROTOCOL),
    "another protocol": ([b"SSH-2.0-OpenSSH_9.2\r\n", FIN], Fault.PROTOCOL),
    "a NUL in a header": ([head("200 OK", "X-A: a\0b", CL), AUDIO, FIN], Fault.PROTOCOL),
    "closed before an answer": ([FIN], Fault.BROKEN),
    "reset before an answer": ([RST], Fault.BROKEN),
    "closed in the head": ([b"HTTP/1.1 200 OK\r\nContent-Le", FIN], Fault.BROKEN),
    "close-delimited": ([head("200 OK", TYPE, "Connection: close"), AUDIO, FIN], (AUDIO, False)),
    "close-delimited, HTTP/1.0": ([b"HTTP/1.0 200 OK\r\n\r\n" + AUDIO, FIN], (AUDIO, False)),
    "close-delimited, reset": ([head("200 OK", TYPE, "Connection: close") + AUDIO, RST], Fault.BROKEN),
    "chunked in HTTP/1.0": ([b"HTTP/1.0 200 OK\r\n" + CHUNKED.encode() + b"\r\n\r\n" + chunk(AUDIO) + chunk(b""), FIN],
                            (AUDIO, False)),
    "content-length in HTTP/1.0": ([b"HTTP/1.0 200 OK\r\n" + CL.encode() + b"\r\n\r\n" + AUDIO, FIN], (AUDIO, True)),
    "gzip, whole": ([head("200 OK", f"Content-Length: {len(GZIPPED)}", "Content-Encoding: gzip"), GZIPPED], Fault.ENCODED),
    "gzip, truncated": ([head("200 OK", "Content-Length: 10", "Content-Encoding: gzip"), GZIPPED[:10]], Fault.ENCODED),
    "gzip as transfer coding": ([head("200 OK", "Transfer-Encoding: gzip, chunked"), chunk(GZIPPED), chunk(b"")],
                                Fault.PROTOCOL),
    "identity, said so": ([head("200 OK", CL, "Content-Encoding: identity"), AUDIO], (AUDIO, True)),
    "206 that nobody asked for": ([head("206 Partial Content", CL, "Content-Range: bytes 0-99/200"), AUDIO], Fault.STATUS),
    "200 of no bytes": ([head("200 OK", "Content-Length: 0")], (b"", True)),
    "header lines that end with a bare LF": ([b"HTTP/1.1 200 OK\nContent-Length: 100\n\n", AUDIO, HOLD],
        Fault.PROTOCOL),
    "ten 102 before the 200": ([head("102 Processing") * 10, whole(AUDIO)], (AUDIO, True)),
    "eleven 102 before the 200": ([head("102 Processing") * 11, whole(AUDIO)], Fault.PROTOCOL),
    "chunked twice": ([head("200 OK", CHUNKED, CHUNKED), chunk(AUDIO), chunk(b"")], Fault.PROTOCOL),
    "a folded header": ([head("200 OK", "X-A: a\r\n b", CL), AUDIO], Fault.PROTOCOL),
    "a space before a colon": ([head("200 OK", "Content-Length : 100"), AUDIO], Fault.PROTOCOL),
    "a chunk that is longer than it says": ([head("200 OK", CHUNKED) + b"3\r\nabcd\r\n0\r\n\r\n"], Fault.PROTOCOL),
    "a line of a chunk that ends with a bare LF": ([head("200 OK", CHUNKED) + b"3\nabc\r\n0\r\n\r\n"], Fault.PROTOCOL),
    "a redirect": ([head("302 Found", "Location: http://169.254.169.254/", "Content-Length: 0")], Fault.STATUS),
    "switching protocols": ([head("101 Switching Protocols", "Upgrade: x", "Connection: upgrade"), FIN], Fault.STATUS),
    "a thousand headers": ([head("200 OK", *(f"X-{n}: y" for n in range(1000)), CL), AUDIO], Fault.PROTOCOL),
    "a header of 100 KB": ([head("200 OK", "X-Long: " + "y" * 100_000, CL), AUDIO], Fault.PROTOCOL),
    "a reason phrase of 100 KB": ([head("200 " + "y" * 100_000, CL), AUDIO], Fault.PROTOCOL),
    "a text that it quotes": ([head("200 OK", "X-Echo: Hello\0"), FIN], Fault.PROTOCOL),
}  # fmt: skip


@pytest.mark.parametrize(("script", "expected"), BROKEN.values(), ids=BROKEN.keys())
async def test_names_what_was_wrong(script: Script, expected: Fault | tuple[bytes, bool]) -> None:
    async with ScriptedUpstream(script) as upstream, opened() as lines:
        if isinstance(expected, Fault):
            with pytest.raises(UpstreamFault) as met:
                await heard(lines, upstream.url)
            assert met.value.fault is expected
            assert "Hello" not in str(met.value), "what was said is private"
        else:
            assert await heard(lines, upstream.url) == expected
        assert len(upstream.requests) == 1, "a new connection's request is never sent twice"


@pytest.mark.parametrize(("script", "expected"), BROKEN.values(), ids=BROKEN.keys())
async def test_what_is_heard_at_once_is_judged_the_same(script: Script, expected: Fault | tuple[bytes, bool]) -> None:
    async with ScriptedUpstream([whole(WARM[0])], script) as upstream, opened() as lines:
        if isinstance(expected, Fault):
            with pytest.raises(UpstreamFault) as met:
                await heard_at_once(lines, upstream.url)
            assert met.value.fault is expected
        else:
            assert await heard_at_once(lines, upstream.url) == expected


@pytest.mark.parametrize("when", ["head", "first part", "second part"])
async def test_what_goes_wrong_with_hearing_is_told_to_who_enters(when: str) -> None:
    go = asyncio.Event()

    def hear(answer: Answer) -> Callable[[bytes], None]:
        if when == "head":
            raise ZeroDivisionError
        return take

    def take(part: bytes) -> None:
        if when == "first part" or part == b"two":
            raise ZeroDivisionError
        go.set()

    script: list[Step] = [head("200 OK", CHUNKED) + chunk(b"one"), go, chunk(b"two"), HOLD]
    async with ScriptedUpstream([whole(WARM[0])], script) as upstream, opened() as lines:
        assert await heard(lines, upstream.url) == WARM
        asking = lines.ask("c", order(upstream.url), {})

        async def entered() -> None:
            async with asking as answer:
                await answer.pour(take)

        asking.begin(hear)
        with pytest.raises(ZeroDivisionError):
            await entered()
        go.set()
        await upstream.left()


async def test_what_was_begun_and_is_given_back_costs_its_line_and_nothing_else() -> None:
    async with ScriptedUpstream([whole(WARM[0])], [HOLD], [whole(WARM[0])]) as upstream, opened() as lines:
        assert await heard(lines, upstream.url) == WARM
        asking = lines.ask("c", order(upstream.url), {})
        asking.begin()
        asking.give_back()
        await upstream.left()
        assert await heard(lines, upstream.url) == WARM


@pytest.mark.parametrize(
    ("status", "fault", "elsewhere", "counts"),
    [
        (400, Fault.REFUSED, False, False),
        (404, Fault.REFUSED, False, False),
        (413, Fault.REFUSED, False, False),
        (415, Fault.REFUSED, False, False),
        (422, Fault.REFUSED, False, False),
        (401, Fault.UNAUTHORIZED, True, True),
        (402, Fault.UNAUTHORIZED, True, True),
        (403, Fault.UNAUTHORIZED, True, True),
        (405, Fault.FAILED, True, True),
        (429, Fault.BUSY, True, False),
        (503, Fault.BUSY, True, False),
        (500, Fault.FAILED, True, True),
        (502, Fault.FAILED, True, True),
        (204, Fault.STATUS, True, True),
        (304, Fault.STATUS, True, True),
        (307, Fault.STATUS, True, True),
    ],
)
def test_a_status_says_whose_fault_it_is(status: int, fault: Fault, elsewhere: bool, counts: bool) -> None:
    named = status_fault(status)
    assert named is fault
    met = UpstreamFault(named, "c", "", status)
    assert (met.elsewhere, met.counts) == (elsewhere, counts)


NOW = 1_000_000_000.0  # Sun, 09 Sep 2001 01:46:40 GMT


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0),
        (" 7 ", 7),
        ("60", 60),
        ("61", 60),
        ("9" * 5000, 60),
        ("Sun, 09 Sep 2001 01:46:50 GMT", 10),
        ("Sun, 09 Sep 2001 01:46:30 GMT", 0),
        ("Sun, 09 Sep 2091 01:46:30 GMT", 60),
        ("soon", None),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("Sun, 99 Sep 2001 99:99:99 GMT", None),
    ],
)
def test_reads_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, NOW) == seconds


async def test_a_busy_cluster_says_for_how_long() -> None:
    busy = [head("503 Service Unavailable", "Retry-After: 7", "Content-Length: 4"), b"busy"]
    async with ScriptedUpstream(busy) as upstream, opened() as lines:
        with pytest.raises(UpstreamFault) as met:
            await heard(lines, upstream.url)
        assert (met.value.fault, met.value.status, met.value.retry_after_s) == (Fault.BUSY, 503, 7)


async def test_asks_with_a_request_of_its_own() -> None:
    async with ScriptedUpstream([whole(AUDIO)]) as upstream, opened() as lines:
        forwarding = {"Via": "1.1 edge-syd-1 (edgecache)", "CDN-Loop": "edgecache-7f3a"}
        outgoing = Outgoing(f"{upstream.url}/v1/tts", {"content-type": "application/json", "X-API-Key": "key"}, b"{}")
        async with lines.ask("c", outgoing, forwarding) as answer:
            assert (answer.status, answer.media_type, answer.content_length) == (200, "audio/wav", len(AUDIO))
            assert answer.headers["content-length"] == "100"
        (asked,) = upstream.requests
        assert (asked.method, asked.target, asked.body) == ("POST", "/v1/tts", b"{}")
        agent = asked.headers.pop("user-agent")
        assert agent.startswith("edgecache/")
        assert "aiohttp" not in agent
        assert asked.headers == {
            "host": f"127.0.0.1:{upstream.port}",
            "content-type": "application/json",
            "content-length": "2",
            "accept": "audio/*",
            "accept-encoding": "identity",
            "x-api-key": "key",
            "via": "1.1 edge-syd-1 (edgecache)",
            "cdn-loop": "edgecache-7f3a",
        }


async def test_keeps_no_cookies() -> None:
    async with ScriptedUpstream([head("200 OK", "Set-Cookie: a=b; Path=/", "Content-Length: 0")]) as upstream:
        async with opened() as lines:
            await heard(lines, upstream.url)
            await heard(lines, upstream.url)
        assert "cookie" not in upstream.requests[1].headers


@pytest.mark.parametrize("media_type", ["audio/wav\xff", "audio/\u00e9"], ids=["8-bit", "latin"])
async def test_a_media_type_that_cannot_be_sent_on_counts_as_absent(media_type: str) -> None:
    script = [f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nContent-Length: 0\r\n\r\n".encode("latin-1")]
    async with (
        ScriptedUpstream(script) as upstream,
        opened() as lines,
        lines.ask("c", order(upstream.url), {}) as answer,
    ):
        assert answer.media_type == ""


async def test_a_bad_chunk_in_mid_body_breaks_the_body() -> None:
    go = asyncio.Event()
    script: list[Step] = [head("200 OK", CHUNKED), chunk(b"one"), go, b"xyz\r\n", FIN]
    async with (
        ScriptedUpstream(script) as upstream,
        opened() as lines,
        lines.ask("c", order(upstream.url), {}) as answer,
        aclosing(answer.chunks()) as chunks,
    ):
        assert await anext(chunks) == b"one"
        go.set()
        with pytest.raises(UpstreamFault) as met:
            await anext(chunks)
        assert met.value.fault is Fault.BROKEN


async def test_bytes_are_there_as_soon_as_they_come() -> None:
    go = [asyncio.Event(), asyncio.Event()]
    script: list[Step] = [head("200 OK", CHUNKED), chunk(b"one"), go[0], chunk(b"two"), go[1], chunk(b"")]
    async with (
        ScriptedUpstream(script) as upstream,
        opened() as lines,
        lines.ask("c", order(upstream.url), {}) as answer,
        aclosing(answer.chunks()) as chunks,
    ):
        assert await anext(chunks) == b"one"
        go[0].set()
        assert await anext(chunks) == b"two"
        go[1].set()
        assert [each async for each in chunks] == []


async def test_a_body_is_poured_out_part_by_part_as_it_comes() -> None:
    go, came = [asyncio.Event(), asyncio.Event()], asyncio.Queue[bytes]()
    script: list[Step] = [head("200 OK", CHUNKED), chunk(b"one"), go[0], chunk(b"two"), go[1], chunk(b"")]
    async with (
        ScriptedUpstream(script) as upstream,
        opened() as lines,
        lines.ask("c", order(upstream.url), {}) as answer,
    ):
        pouring = asyncio.create_task(answer.pour(came.put_nowait))
        assert await came.get() == b"one"
        go[0].set()
        assert await came.get() == b"two"
        assert not pouring.done()
        go[1].set()
        await pouring


@pytest.mark.parametrize("behind_the_head", [True, False], ids=["with the head", "later"])
async def test_whoever_can_not_take_a_part_ends_it_and_is_given_no_more(behind_the_head: bool) -> None:
    go, tried = asyncio.Event(), []

    def refuse(part: bytes) -> None:
        tried.append(part)
        raise ZeroDivisionError

    parts: list[Step] = [chunk(b"one"), chunk(b"two"), chunk(b""), HOLD]
    script: list[Step] = [head("200 OK", CHUNKED) + chunk(b"one"), HOLD]
    async with (
        ScriptedUpstream(script if behind_the_head else [head("200 OK", CHUNKED), go, *parts]) as upstream,
        opened() as lines,
    ):
        async with lines.ask("c", order(upstream.url), {}) as answer:
            go.set()
            with pytest.raises(ZeroDivisionError):
                await answer.pour(refuse)
        await upstream.left()
    assert len(tried) == 1


# Time-outs.


def impatient(**short: float) -> Timeouts:
    return Timeouts(**{"connect_s": 10, "first_byte_s": 10, "between_bytes_s": 10, "total_s": 20} | short)


@pytest.mark.parametrize(
    ("timeouts", "script", "fault"),
    [
        pytest.param(impatient(first_byte_s=SHORT_S), [HOLD], Fault.FIRST_BYTE_TIMEOUT, id="silent"),
        pytest.param(
            impatient(first_byte_s=SHORT_S), [b"HTTP/1.1 200 OK\r\nX", HOLD], Fault.FIRST_BYTE_TIMEOUT, id="half a head"
        ),
        pytest.param(
            impatient(first_byte_s=SHORT_S), [head("200 OK", CL), HOLD], Fault.FIRST_BYTE_TIMEOUT, id="a head alone"
        ),
        pytest.param(
            impatient(first_byte_s=SHORT_S), [head("102 Processing"), HOLD], Fault.FIRST_BYTE_TIMEOUT, id="102 alone"
        ),
        pytest.param(
            impatient(between_bytes_s=SHORT_S), [head("200 OK", CL), AUDIO[:9], HOLD], Fault.STALLED, id="mid-body"
        ),
        pytest.param(
            impatient(total_s=SHORT_S), [head("200 OK", CL), AUDIO[:9], HOLD], Fault.TOTAL_TIMEOUT, id="in all"
        ),
    ],
)
async def test_does_not_wait_for_ever(timeouts: Timeouts, script: Script, fault: Fault) -> None:
    async with ScriptedUpstream(script) as upstream, opened(timeouts) as lines:
        with pytest.raises(UpstreamFault) as met:
            await heard(lines, upstream.url)
        assert met.value.fault is fault
        await upstream.left()


@pytest.mark.parametrize(
    ("timeouts", "fault"),
    [(impatient(between_bytes_s=SHORT_S), Fault.STALLED), (impatient(total_s=SHORT_S), Fault.TOTAL_TIMEOUT)],
    ids=["between two parts", "in all"],
)
async def test_a_part_that_came_does_not_put_off_the_time_of_the_whole(timeouts: Timeouts, fault: Fault) -> None:
    parts = asyncio.Queue[bytes]()
    script: list[Step] = [head("200 OK", CHUNKED), chunk(b"one"), HOLD]
    async with (
        ScriptedUpstream(script) as upstream,
        opened(timeouts) as lines,
        lines.ask("c", order(upstream.url), {}) as answer,
    ):
        with pytest.raises(UpstreamFault) as met:
            await answer.pour(parts.put_nowait)
        assert (met.value.fault, parts.get_nowait()) == (fault, b"one")


async def test_a_slow_reader_is_not_a_stalled_cluster() -> None:
    late = asyncio.Event()
    script: list[Step] = [head("200 OK", CHUNKED), chunk(b"one"), late, chunk(b"two"), chunk(b"")]
    async with (
        ScriptedUpstream(script) as upstream,
        opened(impatient(between_bytes_s=SHORT_S)) as lines,
        lines.ask("c", order(upstream.url), {}) as answer,
        aclosing(answer.chunks()) as chunks,
    ):
        assert await anext(chunks) == b"one"
        late.set()
        await asyncio.sleep(2 * SHORT_S)  # the reader's own time, longer than the cluster may take
        assert [each async for each in chunks] == [b"two"]


@pytest.fixture
def black_hole() -> Iterator[str]:
    """An address whose connections are never accepted: its queue is full."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for each in (first, second):
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        yield f"http://127.0.0.1:{full.getsockname()[1]}"


async def test_gives_up_connecting_in_time(black_hole: str) -> None:
    async with opened(impatient(connect_s=SHORT_S)) as lines:
        with pytest.raises(UpstreamFault, match="can't connect in time") as met:
            await heard(lines, black_hole)
        assert met.value.fault is Fault.CONNECT


@pytest.mark.parametrize(
    "url", [f"http://127.0.0.1:{closed_port()}", "http://nowhere.invalid:80"], ids=["port", "name"]
)
async def test_says_when_nobody_is_there(url: str) -> None:
    async with opened() as lines:
        with pytest.raises(UpstreamFault) as met:
            await heard(lines, url)
        assert met.value.fault is Fault.CONNECT


async def test_speaks_no_plain_text_to_whom_it_asks_for_tls() -> None:
    refusal: Script = [b"HTTP/1.1 400 Bad Request\r\n\r\n", FIN]
    async with ScriptedUpstream([whole(AUDIO)], on_connect=refusal) as upstream, opened() as lines:
        with pytest.raises(UpstreamFault) as met:
            await heard(lines, upstream.url.replace("http:", "https:"))
        assert (met.value.fault, upstream.requests) == (Fault.UNTRUSTED, [])


async def test_waiting_for_our_own_pool_is_not_the_clusters_fault() -> None:
    timeouts = impatient(first_byte_s=SHORT_S)
    script: list[Step] = [head("200 OK", CL), AUDIO[:9], HOLD]
    async with (
        ScriptedUpstream(script) as upstream,
        opened(timeouts, Pool(max_per_host=1)) as lines,
        lines.ask("c", order(upstream.url), {}),
    ):
        with pytest.raises(UpstreamFault, match="no connection to it was free") as met:
            await heard(lines, upstream.url)
        assert met.value.fault is Fault.BUSY


@pytest.mark.parametrize(
    ("total_at", "first", "fault"),
    [(100.0, False, Fault.TOTAL_TIMEOUT), (200.0, False, Fault.STALLED), (200.0, True, Fault.FIRST_BYTE_TIMEOUT)],
)
def test_a_late_read_is_named_after_the_bound_that_it_missed(total_at: float, first: bool, fault: Fault) -> None:
    deadlines = Deadlines(Timeouts(first_byte_s=60.0, between_bytes_s=50.0, total_s=total_at - 40.0), 40.0)
    assert deadlines.due_at == 100.0
    if not first:
        assert deadlines.came(90.0) == min(140.0, total_at)
    assert deadlines.missed()[0] is fault
    assert (deadlines.over(total_at), deadlines.over(total_at + 0.1)) == (False, True)
