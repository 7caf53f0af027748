"""Every way in which a cluster may fail: nothing partial is stored, no end is faked, the next request works."""

import asyncio
import struct
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from edgecache.demo import tone
from tests.houses import PATIENT, TIMEOUTS, UNMEASURED, Heard, House, cluster, house, raw, running, settings
from tests.scripted_upstream import FIN, HOLD, RST, Script, ScriptedUpstream, chunk, chunked, closed_port, head, whole

pytestmark = pytest.mark.net

ASKED = {"text": "A cluster that fails"}
WAV = tone.audio(ASKED)
HALF = len(WAV) // 2
STREAMED = head("200 OK", "Content-Type: audio/wav", "Transfer-Encoding: chunked")
SIZED = head("200 OK", "Content-Type: audio/wav", f"Content-Length: {len(WAV)}")


def answer(body: bytes, *fields: str, status: str = "200 OK", media_type: str = "audio/wav") -> bytes:
    return head(status, f"Content-Type: {media_type}", f"Content-Length: {len(body)}", *fields) + body


@dataclass(frozen=True)
class Row:
    """What a cluster does, and what its client is to see. broken: 200, then no end."""

    name: str
    script: Script
    status: int
    broken: bool = False
    whole_bytes: bytes | None = None


EMPTY_WAV = WAV[:40] + struct.pack("<I", 0)
SHORT_WAV = WAV[:HALF]

ROWS = [
    # A body that breaks off after its first audio: the client can tell.
    Row("1 cut, with a length", [SIZED + WAV[:HALF], FIN], 200, broken=True),
    Row("2 cut in a chunk", [STREAMED + chunk(WAV)[: HALF + 6], FIN], 200, broken=True),
    Row("2 no last chunk", [STREAMED + chunk(WAV), FIN], 200, broken=True),
    Row("2 last chunk without its end", [STREAMED + chunk(WAV) + b"0\r\n", FIN], 200, broken=True),
    Row("4 reset in mid-body", [STREAMED + chunk(WAV[:HALF]), RST], 200, broken=True),
    Row(
        "5 length too large",
        [head("200 OK", "Content-Type: audio/wav", "Content-Length: 999999") + WAV, FIN],
        200,
        True,
    ),
    Row("6 bad chunk size", [STREAMED + chunk(WAV[:1000]) + b"zz\r\n", FIN], 502),
    Row("17 stalls in mid-body", [STREAMED + chunk(WAV[:HALF]), HOLD], 200, broken=True),
    Row(
        "3 unframed and cut",
        [head("200 OK", "Content-Type: audio/wav", "Connection: close") + SHORT_WAV, FIN],
        200,
        True,
    ),
    # A body whose end is to be believed, but that is not to be stored.
    Row("3 unframed", [head("200 OK", "Content-Type: audio/wav", "Connection: close") + WAV, FIN], 200, False, WAV),
    Row("3 HTTP/1.0", [b"HTTP/1.0 200 OK\r\nContent-Type: audio/wav\r\n\r\n" + WAV, FIN], 200, False, WAV),
    Row("10 framed, but the audio is cut", [whole(SHORT_WAV)], 200, False, SHORT_WAV),
    # Anything before the first audio is a proper error.
    Row("5 bytes behind the length", [whole(WAV[:1000]) + b"more"], 502),
    Row("6 length and chunks", [head("200 OK", "Content-Length: 5", "Transfer-Encoding: chunked") + chunk(WAV)], 502),
    Row(
        "6 two lengths",
        [head("200 OK", "Content-Type: audio/wav", "Content-Length: 5", "Content-Length: 6") + WAV],
        502,
    ),
    Row(
        "6 NUL in a header",
        [head("200 OK", "Content-Type: audio/wav", "X-A: b\0c", f"Content-Length: {len(WAV)}") + WAV],
        502,
    ),
    Row("6 not HTTP", [b"hello\r\n\r\n", FIN], 502),
    Row("7 JSON with 200", [answer(b'{"error":"no"}', media_type="application/json")], 502),
    Row("7 JSON that says it is audio", [answer(b'{"error":"no"}', media_type="audio/mpeg")], 502),
    Row("7 JSON that says it is WAV", [answer(b'{"error":"no voice of that name"}')], 502),
    Row("8 HTML", [answer(b"<!DOCTYPE html><html></html>", media_type="text/html")], 502),
    Row("8 HTML that says it is audio", [answer(b"<!DOCTYPE html><html></html>" * 9, media_type="audio/ogg")], 502),
    Row("9 nothing at all", [answer(b"")], 502),
    Row("9 a header and no audio", [answer(EMPTY_WAV)], 502),
    Row("9 empty chunks", [chunked()], 502),
    Row("11 no media type", [head("200 OK", f"Content-Length: {len(WAV)}") + WAV], 502),
    Row("12 206 unasked", [answer(WAV, status="206 Partial Content")], 502),
    Row("12 204", [head("204 No Content")], 502),
    Row("12 304", [head("304 Not Modified")], 502),
    Row("13 redirect", [head("307 Temporary Redirect", "Location: http://169.254.169.254/", "Content-Length: 0")], 502),
    Row("14 429", [head("429 Too Many Requests", "Retry-After: 3", "Content-Length: 0")], 503),
    Row("14 503", [head("503 Service Unavailable", "Retry-After: 3", "Content-Length: 0")], 503),
    Row("15 500", [head("500 Internal Server Error", "Content-Length: 0")], 502),
    Row("our key is refused", [head("401 Unauthorized", "Content-Length: 0")], 502),
    Row("the utterance is refused", [head("422 Unprocessable Content", "Content-Length: 0")], 422),
    Row("16 no answer", [HOLD], 504),
    Row("16 a head and no body", [STREAMED, HOLD], 504),
    Row("16 a WAV header and no audio", [STREAMED + chunk(WAV[:44]), HOLD], 504),
    Row("closed without a word", [FIN], 502),
    Row("30 1000 headers", [head("200 OK", *[f"X-{n}: y" for n in range(1000)]) + WAV, FIN], 502),
    Row("30 a long header", [head("200 OK", "X-A: " + "b" * 100_000) + WAV, FIN], 502),
    Row("30 a long reason", [head("200 " + "O" * 100_000) + WAV, FIN], 502),
    Row("31 gzip unasked", [answer(WAV, "Content-Encoding: gzip")], 502),
]


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
async def test_rule_2_and_3_a_broken_cluster(row: Row) -> None:
    async with (
        ScriptedUpstream(row.script) as peer,
        running(settings(peer.url, timeouts=TIMEOUTS if HOLD in row.script else PATIENT)) as node,
        aiohttp.ClientSession() as client,
    ):
        async with client.post(f"http://127.0.0.1:{node.port}/v1/tts", json=ASKED) as got:
            heard = await Heard.of(got, {"text": "checked below", "demo": {"lie": True}})
        assert heard.status == row.status, heard.body
        assert heard.whole == (not row.broken)
        if heard.status == 200:
            assert WAV.startswith(heard.body)
            assert row.whole_bytes is None or heard.body == row.whole_bytes
        else:
            assert heard.headers["Content-Type"] == "application/problem+json"
            assert ASKED["text"].encode() not in heard.body
        assert len(node._memory) == 0
        assert node.fills.held_bytes == 0
        peer.probe_script = [HOLD]
        async with cluster() as well, running(settings(well.url)) as other:
            home = House(well, other, client)
            assert (await home.say(ASKED["text"])).whole


async def test_a_key_is_fillable_again_at_once() -> None:
    script: Script = [STREAMED + chunk(WAV[:HALF]), RST]
    async with (
        ScriptedUpstream(script, [whole(WAV)]) as peer,
        running(settings(peer.url)) as node,
        aiohttp.ClientSession() as client,
    ):
        url = f"http://127.0.0.1:{node.port}/v1/tts"
        async with client.post(url, json=ASKED) as got:
            assert not (await Heard.of(got, ASKED)).whole
        async with client.post(url, json=ASKED) as got:
            heard = await Heard.of(got, ASKED)
        assert heard.whole
        assert heard.body == WAV


async def test_rule_3_a_broken_body_has_no_last_chunk_on_the_wire() -> None:
    """Read raw: a client library might hide it."""
    async with ScriptedUpstream([STREAMED + chunk(WAV[:HALF]), FIN]) as peer, running(settings(peer.url)) as node:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        body = b'{"text":"A cluster that fails"}'
        writer.write(b"POST /v1/tts HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        got = await reader.read()
        writer.close()
        assert b"Transfer-Encoding: chunked" in got
        assert not got.endswith(b"0\r\n\r\n")


async def test_rule_3_http_1_0_is_given_all_or_an_error() -> None:
    async with (
        ScriptedUpstream([STREAMED + chunk(WAV[:HALF]), FIN], [whole(WAV)]) as peer,
        running(settings(peer.url)) as node,
    ):
        body = b'{"text":"A cluster that fails"}'
        sent = b"POST /v1/tts HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        assert b" 502 " in (await raw(node.port, sent))[:20]
        got = await raw(node.port, sent)
        assert b" 200 " in got[:20]
        assert got.partition(b"\r\n\r\n")[2] == WAV


async def test_rule_5_another_cluster_is_asked_only_before_the_first_audio() -> None:
    async with (
        ScriptedUpstream([STREAMED + chunk(EMPTY_WAV) + chunk(b"")]) as silent,
        ScriptedUpstream([STREAMED + chunk(WAV[:HALF]), FIN]) as broken,
        ScriptedUpstream([whole(WAV)], probe_script=[HOLD]) as well,
        aiohttp.ClientSession() as client,
    ):
        for first, expected in [(silent, True), (broken, False)]:
            async with (
                running(settings(first.url, well.url, probing=UNMEASURED)) as node,
                client.post(f"http://127.0.0.1:{node.port}/v1/tts", json=ASKED) as got,
            ):
                heard = await Heard.of(got, ASKED)
            assert (heard.status, heard.whole) == (200, expected)
            assert (len(first.requests), len(well.requests)) == (1, 1 if expected else 0)
            well.requests.clear()


async def test_rule_5_takes_are_never_mixed() -> None:
    async with house(knobs={"take": True, "rtf": 0.05}) as home:
        asked: dict[str, Any] = {"text": "Another take", "demo": {"take": True, "bytes": 24_000}}
        fresh = {"Cache-Control": "no-cache"}
        heard = await asyncio.gather(*(home.say(**asked, headers=fresh if n % 3 == 0 else None) for n in range(12)))
        assert all(each.whole for each in heard)
        assert home.origin.counters.syntheses in (4, 5)  # five when a plain request was there first


async def test_a_closed_port_and_all_down_are_told_at_once() -> None:
    async with running(settings(f"http://127.0.0.1:{closed_port()}")) as node, aiohttp.ClientSession() as client:
        for _ in range(5):
            async with client.post(f"http://127.0.0.1:{node.port}/v1/tts", json=ASKED) as got:
                heard = await Heard.of(got, ASKED)
            assert (heard.status, heard.code) == (503, "no_cluster")
            assert int(heard.headers["Retry-After"]) >= 1


async def test_an_operator_is_told_why_speech_is_never_stored() -> None:
    async with (
        ScriptedUpstream([whole(SHORT_WAV)]) as peer,
        running(settings(peer.url)) as node,
        aiohttp.ClientSession() as client,
    ):
        async with client.post(f"http://127.0.0.1:{node.port}/v1/tts", json=ASKED) as got:
            assert await got.read() == SHORT_WAV
        async with client.get(f"http://127.0.0.1:{node.admin_port}/status") as got:
            told = (await got.json())["fills"]
        assert (told["sealed"], told["unstored"]) == (0, {"wav_short": 1})
