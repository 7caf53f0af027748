"""Hostile HTTP: no request is ever executed out of a body, and what is unclear is refused and closed."""

import asyncio
import json
import re
import socket
from typing import Any

import pytest

from edgecache.delivery.limits import FastLane, RequestLimits
from tests.daemon import eventually
from tests.houses import house, raw

pytestmark = pytest.mark.net

#: A request hidden in a body or behind odd framing; executed, it would answer `not_recorded`.
CANARY = b"GET /v1/audio/" + b"f" * 64 + b" HTTP/1.1\r\nHost: x\r\n\r\n"
CANARY_MARK = b"not_recorded"
BODY = b'{"text":"hi"}'


def post(
    *lines: bytes, body: bytes = b"", version: bytes = b"1.1", target: bytes = b"/v1/tts", host: bytes = b"x"
) -> bytes:
    head = [b"POST " + target + b" HTTP/" + version, *([b"Host: " + host] if host else []), *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def sized(body: bytes = BODY) -> bytes:
    return b"Content-Length: %d" % len(body)


CHUNKED = b"Transfer-Encoding: chunked"
NO_CHUNKS = b"0\r\n\r\n"

#: Everything here is refused with one of these, and the connection closed.
BAD: list[tuple[str, bytes, set[int]]] = [
    ("CL.TE", post(sized(NO_CHUNKS + CANARY), CHUNKED, body=NO_CHUNKS + CANARY), {400}),
    ("TE.CL", post(CHUNKED, b"Content-Length: 4", body=b"0\r\n\r\n" + CANARY), {400}),
    ("same length twice", post(sized(), sized(), body=BODY + CANARY), {400}),
    ("two lengths", post(sized(), b"Content-Length: 0", body=BODY + CANARY), {400}),
    ("list of lengths", post(b"Content-Length: 13, 13", body=BODY + CANARY), {400}),
    ("length +13", post(b"Content-Length: +13", body=BODY + CANARY), {400}),
    ("length -1", post(b"Content-Length: -1", body=CANARY), {400}),
    ("length 0xd", post(b"Content-Length: 0xd", body=BODY + CANARY), {400}),
    ("length 1_3", post(b"Content-Length: 1_3", body=BODY + CANARY), {400}),
    ("length overflows", post(b"Content-Length: 99999999999999999999999", body=CANARY), {400, 413}),
    ("space before colon", post(b"Content-Length : 13", body=BODY + CANARY), {400}),
    ("tab before colon", post(b"Transfer-Encoding\t: chunked", body=NO_CHUNKS + CANARY), {400}),
    ("xchunked", post(b"Transfer-Encoding: xchunked", body=NO_CHUNKS + CANARY), {400}),
    ("chunked, identity", post(b"Transfer-Encoding: chunked, identity", body=NO_CHUNKS + CANARY), {400}),
    ("identity, chunked", post(b"Transfer-Encoding: identity, chunked", body=NO_CHUNKS + CANARY), {400}),
    ("gzip, chunked", post(b"Transfer-Encoding: gzip, chunked", body=NO_CHUNKS + CANARY), {400}),
    ("chunked twice", post(CHUNKED, CHUNKED, body=NO_CHUNKS + CANARY), {400}),
    ("chunked, chunked", post(b"Transfer-Encoding: chunked, chunked", body=NO_CHUNKS + CANARY), {400}),
    ("VT before chunked", post(b"Transfer-Encoding: \x0bchunked", body=NO_CHUNKS + CANARY), {400}),
    ("quoted chunked", post(b'Transfer-Encoding: "chunked"', body=NO_CHUNKS + CANARY), {400}),
    ("obs-fold", post(b"X-A: b\r\n Transfer-Encoding: chunked", sized(), body=BODY + CANARY), {400}),
    ("chunked on 1.0", post(CHUNKED, body=NO_CHUNKS + CANARY, version=b"1.0"), {400}),
    ("LF in chunk extension", post(CHUNKED, body=b"d;a\nb\r\n" + BODY + b"\r\n0\r\n\r\n" + CANARY), {400}),
    ("bare LF chunk line", post(CHUNKED, body=b"d\n" + BODY + b"\r\n0\r\n\r\n" + CANARY), {400}),
    ("chunk size 0xd", post(CHUNKED, body=b"0xd\r\n" + BODY + b"\r\n0\r\n\r\n" + CANARY), {400}),
    ("chunk size -1", post(CHUNKED, body=b"-1\r\n" + BODY + b"\r\n0\r\n\r\n" + CANARY), {400}),
    ("chunk size overflows", post(CHUNKED, body=b"f" * 20 + b"\r\n" + BODY + b"\r\n0\r\n\r\n" + CANARY), {400}),
    ("no CRLF after chunk", post(CHUNKED, body=b"d\r\n" + BODY + b"0\r\n\r\n" + CANARY), {400}),
    ("bare LF headers", b"POST /v1/tts HTTP/1.1\nHost: x\nContent-Length: 13\n\n" + BODY + CANARY, {400}),
    ("bare CR in header", post(b"X-A: b\rTransfer-Encoding: chunked", sized(), body=BODY + CANARY), {400}),
    ("NUL in header", post(b"X-A: b\x00c", sized(), body=BODY), {400}),
    ("two hosts", post(b"Host: y", sized(), body=BODY), {400}),
    ("no host", post(sized(), body=BODY, host=b""), {400}),
    ("host with a path", post(sized(), body=BODY, host=b"x/../y?z"), {400}),
    ("host with a user", post(sized(), body=BODY, host=b"a@b"), {400}),
    ("HTTP/1.2", post(sized(), body=BODY, version=b"1.2"), {400, 505}),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 505}),
    ("HTTP/0.9", b"GET /\r\n\r\n", {400, 505}),
    ("space in header name", post(b"X A: b", sized(), body=BODY), {400}),
    ("long header", post(b"X-A: " + b"b" * 50_000, sized(), body=BODY), {431}),
    ("2000 headers", post(*[b"X-%d: y" % n for n in range(2000)], sized(), body=BODY), {431}),
    ("long target", b"GET /v1/tts?text=" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", {431}),
    ("absolute form", post(sized(), body=BODY, target=b"http://evil/v1/tts"), {400}),
    ("absolute form of an admin", b"GET http://127.0.0.1:9901/status HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
    ("asterisk form", b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
    ("CONNECT", b"CONNECT evil:443 HTTP/1.1\r\nHost: evil:443\r\n\r\n" + CANARY, {400, 404, 405}),
    ("fat GET", b"GET /v1/tts?text=x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(CANARY) + CANARY, {400}),
    ("fat chunked GET", b"GET /v1/tts?text=x HTTP/1.1\r\nHost: x\r\n" + CHUNKED + b"\r\n\r\n0\r\n\r\n" + CANARY, {400}),
    ("h2c upgrade", post(b"Upgrade: h2c", b"Connection: Upgrade", sized(), body=BODY + CANARY), {400}),
    (
        "websocket upgrade on a POST",
        post(b"Upgrade: websocket", b"Connection: Upgrade", sized(CANARY), body=CANARY),
        {400},
    ),
    ("gzip body", post(b"Content-Encoding: gzip", sized(CANARY), body=CANARY), {415}),
    ("deflate body", post(b"Content-Encoding: deflate", sized(CANARY), body=CANARY), {415}),
    ("odd expectation", post(b"Expect: 200-ok", sized(CANARY), body=CANARY), {417}),
    ("8-bit header", post(b"X-A: \xff\xfe", sized(), body=BODY), {400}),
    ("8-bit target", b"GET /v1/tts?text=\xff HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
    ("body larger than it may be", post(sized(b"x" * 1_000_000), body=CANARY), {413}),
    ("early 404 with a body", post(sized(CANARY), body=CANARY, target=b"/nothing"), {404}),
    (
        "early 405 with a body",
        b"PUT /v1/tts HTTP/1.1\r\nHost: x\r\n" + sized(CANARY) + b"\r\n\r\n" + CANARY,
        {400, 405},
    ),
]


@pytest.mark.parametrize("lanes", [True, False], ids=["own lanes", "aiohttp alone"])
@pytest.mark.parametrize(("sent", "statuses"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
async def test_hostile_requests_are_refused_and_closed(sent: bytes, statuses: set[int], lanes: bool) -> None:
    async with house(fast_lane=FastLane(enabled=lanes)) as home:
        got = await raw(home.node.port, sent)  # read to its end: the connection was closed
        assert got, "the connection was closed without a word"
        status = int(got.split(b" ", 2)[1])
        assert status in statuses
        assert CANARY_MARK not in got
        assert len(re.findall(rb"^HTTP/\d\.\d \d{3} ", got, re.MULTILINE)) == 1
        assert b"aiohttp" not in got.lower()
        assert home.origin.counters.requests == 0
        assert (await home.say("still well")).whole


GOOD: list[tuple[str, bytes]] = [
    ("plain", post(sized(), b"Connection: close", body=BODY)),
    ("chunked", post(CHUNKED, b"Connection: close", body=b"d\r\n" + BODY + b"\r\n0\r\n\r\n")),
    ("chunk extension", post(CHUNKED, b"Connection: close", body=b"d;a=b\r\n" + BODY + b"\r\n0\r\n\r\n")),
    ("expects 100", post(sized(), b"Expect: 100-continue", b"Connection: close", body=BODY)),
    ("HTTP/1.0", post(sized(), body=BODY, version=b"1.0")),
]


@pytest.mark.parametrize("sent", [row[1] for row in GOOD], ids=[row[0] for row in GOOD])
async def test_plain_requests_are_answered_byte_by_byte_too(sent: bytes) -> None:
    async with house() as home:
        reader, writer = await asyncio.open_connection("127.0.0.1", home.node.port)
        for at in range(len(sent)):
            writer.write(sent[at : at + 1])
            await writer.drain()
            await asyncio.sleep(0)
        got = await reader.read()
        writer.close()
        assert b"HTTP/1.1 200 OK" in got or b"HTTP/1.0 200 OK" in got
        assert home.origin.counters.syntheses == 1


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with house() as home:
        one, two = (json.dumps({"text": text}).encode() for text in ("one", "two and more"))
        sent = post(sized(one), body=one) + post(sized(two), b"Connection: close", body=two)
        got = await raw(home.node.port, sent)
        assert got.count(b"HTTP/1.1 200 OK") == 2
        assert home.origin.counters.syntheses == 2


async def test_a_half_closed_client_is_given_all_its_pipelined_answers() -> None:
    async with house() as home:
        reader, writer = await asyncio.open_connection("127.0.0.1", home.node.port)
        bodies = [json.dumps({"text": f"number {n}"}).encode() for n in range(3)]
        writer.write(b"".join(post(sized(body), body=body) for body in bodies))
        writer.write_eof()
        assert (await reader.read()).count(b"HTTP/1.1 200 OK") == 3
        writer.close()


async def test_rule_7_who_does_not_take_its_last_bytes_is_dropped() -> None:
    """The answer fits into the buffers, so the exchange is over; closing alone would wait for the client without end."""
    limits = RequestLimits(write_stall_s=0.2, keep_alive_s=0.3)
    async with house(limits=limits) as home:
        asked: dict[str, Any] = {"text": "Its last bytes", "demo": {"bytes": 60_000}}
        await home.say(**asked)
        for row in home.node._rows:
            for listening in row:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        mute = socket.socket()
        mute.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        mute.connect(("127.0.0.1", home.node.port))
        body = json.dumps(asked).encode()
        mute.sendall(post(sized(body), body=body))
        await home.client.close()
        async with asyncio.timeout(10):
            while home.node.status()["connections"]:
                await asyncio.sleep(0.02)
        mute.close()


async def test_empty_lines_between_requests_are_nothing() -> None:
    async with house(limits=RequestLimits(header_timeout_s=0.1, keep_alive_s=0.5)) as home:
        reader, writer = await asyncio.open_connection("127.0.0.1", home.node.port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        await reader.readuntil(b"}}")
        writer.write(b"\r\n")
        assert b"408" not in await reader.read()
        writer.close()


async def test_a_client_may_close_its_side_and_is_still_answered() -> None:
    async with house() as home:
        reader, writer = await asyncio.open_connection("127.0.0.1", home.node.port)
        writer.write(post(sized(), b"Connection: close", body=BODY))
        writer.write_eof()
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
        writer.close()


RIGHT = post(sized(), body=BODY)
WRONG = [
    ("chunks and length", post(sized(), CHUNKED, body=BODY)),
    ("no HTTP", b"what is this\r\n\r\n"),
    ("a NUL", post(b"X-A: b\x00c", sized(), body=BODY)),
]


@pytest.mark.parametrize("lane", [True, False], ids=["fast lane", "aiohttp alone"])
@pytest.mark.parametrize("wrong", [row[1] for row in WRONG], ids=[row[0] for row in WRONG])
@pytest.mark.parametrize("right", [1, 3])
async def test_what_is_wrong_costs_nothing_that_was_right_before_it(right: int, wrong: bytes, lane: bool) -> None:
    """Also where all of it comes at once."""
    async with house(fast_lane=FastLane(enabled=lane)) as home:
        got = await raw(home.node.port, RIGHT * right + wrong)
    assert re.findall(rb"HTTP/1\.[01] (\d{3})", got) == [b"200"] * right + [b"400"]


HALVES = [
    ("sized", post(b"Content-Length: 20", body=BODY), [b"400"]),
    ("chunked", post(CHUNKED, body=b"d\r\n" + BODY + b"\r\n"), [b"400"]),
    ("none of it", post(b"Content-Length: 20"), [b"400"]),
    ("all but a byte", post(sized(BODY + b" "), body=BODY), [b"400"]),
    ("behind another", post(sized(), body=BODY) + post(sized(BODY + b" "), body=BODY), [b"200", b"400"]),
    ("that nobody reads", post(sized(BODY + b" "), body=BODY, target=b"/v2"), [b"404"]),
]


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "once it is waited for"])
@pytest.mark.parametrize("lane", [True, False], ids=["fast lane", "aiohttp alone"])
@pytest.mark.parametrize(("sent", "answered"), [row[1:] for row in HALVES], ids=[row[0] for row in HALVES])
async def test_a_body_that_its_client_broke_off_is_not_waited_for(
    sent: bytes, answered: list[bytes], lane: bool, at_once: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """408 would say that it was. Whoever broke it off is told the same whenever that was."""
    async with house(fast_lane=FastLane(enabled=lane)) as home:
        reader, writer = await asyncio.open_connection("127.0.0.1", home.node.port)
        writer.write(sent)
        if not at_once:
            server, tally = home.node._server, home.node.tally
            assert server is not None
            await eventually(lambda: bool(tally.told()) or any(each.busy for each in server.connections))
        writer.write_eof()
        got = await reader.read()
        writer.close()
    assert re.findall(rb"HTTP/1\.1 (\d{3})", got) == answered
    assert b"\r\nConnection: close\r\n" in got.rpartition(b"HTTP/1.1 ")[2]
    assert "Unhandled" not in caplog.text


SLOW = RequestLimits(header_timeout_s=0.2, body_timeout_s=0.2, keep_alive_s=0.3)
DRIBBLES = [
    ("nothing at all", b"", b""),
    ("half a head", b"POST /v1/tts HTTP/1.1\r\nHost:", b"408"),
    ("half a body", post(b"Content-Length: 13", body=b"{"), b"408"),
    ("half a head on a used connection", b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nPOST", b"200"),
]


@pytest.mark.parametrize(("sent", "answered"), [row[1:] for row in DRIBBLES], ids=[row[0] for row in DRIBBLES])
async def test_rule_7_who_dribbles_is_closed(sent: bytes, answered: bytes) -> None:
    async with house(limits=SLOW) as home:
        got = await raw(home.node.port, sent)
        assert answered in got[:20]


async def test_rule_7_connections_have_a_bound() -> None:
    async with house(limits=RequestLimits(connections=3)) as home:
        held = [await asyncio.open_connection("127.0.0.1", home.node.port) for _ in range(3)]
        got = await raw(home.node.port, b"")
        assert got.startswith(b"HTTP/1.1 503")
        assert b"Retry-After: 1" in got
        for _, writer in held:
            writer.close()
            await writer.wait_closed()


@pytest.mark.parametrize(
    "given", [b"ok-1.2_3", b"a" * 65, b"<script>", b'x"; y'], ids=["fine", "long", "markup", "quote"]
)
async def test_a_request_id_is_kept_only_if_it_is_harmless(given: bytes) -> None:
    async with house() as home:
        got = await raw(
            home.node.port,
            b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-Id: " + given + b"\r\n\r\n",
        )
        assert (b"X-Request-Id: " + given + b"\r\n" in got) == (given == b"ok-1.2_3")
        assert re.search(rb"X-Request-Id: [A-Za-z0-9._-]{1,64}\r\n", got)
