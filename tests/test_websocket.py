"""WebSocket sessions, spoken to by `websockets` and by aiohttp."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edgecache.clusters.cluster import Cluster
from edgecache.delivery.auth import Auth, new_key
from edgecache.delivery.limits import RequestLimits, WebSockets
from edgecache.demo import tone
from edgecache.dialects.speech_pb2 import TtsStreamResponse
from edgecache.node import Node
from tests.houses import House, house, keys_file, raw, running, settings
from tests.scripted_upstream import RST, Script, ScriptedUpstream, chunk, chunked, head, reset
from tests.sockets import LIBRARIES, Client, frame, handshake, hear, raw_session, say, with_aiohttp, with_websockets
from tests.spoken import Spoken, take
from tests.test_protobuf import message

pytestmark = pytest.mark.net

each_library = pytest.mark.parametrize("library", LIBRARIES)
LONG: dict[str, Any] = {"text": "One recording, many ways", "demo": {"bytes": 300_000}}
WAV = tone.audio(LONG)
STREAMED = head("200 OK", "Content-Type: audio/wav", "Transfer-Encoding: chunked")
#: Long enough that nothing of it happens by itself.
PATIENT = WebSockets(heartbeat_s=600.0)


@asynccontextmanager
async def talking(library: str = "websockets", **changed: Any) -> AsyncIterator[tuple[House, Client]]:
    async with house(**changed) as home, LIBRARIES[library](home.node.port, {}, ()) as client:
        yield home, client


@each_library
async def test_a_miss_and_a_hit_in_frames_of_4096_bytes(library: str) -> None:
    async with talking(library) as (home, client):
        for cached in ("miss", "hit"):
            await say(client, id="a", **LONG)
            told = await hear(client)
            assert told.audio == WAV
            assert max(told.frames) == 4096
            assert told.before == []
            end = told.end
            assert (end["type"], end["id"], end["cache"]) == ("synthesis_complete", "a", cached)
            assert (end["duration_ms"], end["bytes"], end["chunks"]) == (6249, len(WAV), len(told.frames))
            assert (end["format"], end["sample_rate"]) == ("wav", 24000)
        assert told.frames[:-1] == [4096] * (len(WAV) // 4096), "what is there whole is cut evenly"
        assert (await home.say(**LONG)).body == WAV
        assert home.origin.counters.syntheses == 1


@each_library
async def test_many_texts_are_told_in_order_and_an_error_is_one_of_them(library: str) -> None:
    async with talking(library) as (_, client):
        texts: list[dict[str, Any]] = [{"text": f"Number {n}", "id": n} for n in range(6)]
        texts[3]["demo"] = {"status": 500}
        for each in texts:
            await say(client, **each)
        for each in texts:
            told = await hear(client)
            assert told.end["id"] == each["id"]
            if each["id"] == 3:
                assert (told.end["type"], told.end["error"]["code"]) == ("error", "bad_cluster_answer")
                assert (told.end["status"], told.audio) == (502, b"")
            else:
                assert told.audio == tone.audio({"text": each["text"]})


BAD: list[tuple[str, str | bytes, str, Any]] = [
    ("no JSON", "hello", "bad_json", None),
    ("no object", "[]", "bad_json", None),
    ("no text", '{"id":"x"}', "missing_text", "x"),
    ("empty text", '{"text":" ","id":7}', "empty_text", 7),
    ("a field twice", '{"text":"a","text":"b"}', "duplicate_field", None),
    ("NaN", '{"text":"a","x":NaN}', "bad_number", None),
    ("too long", json.dumps({"text": "x" * 6000, "id": "y", "chunking": "none"}), "text_too_long", "y"),
    ("a strange type", '{"type":"dance","id":"z"}', "unknown_type", "z"),
    ("a strange id", '{"text":"a","id":[1]}', "bad_id", None),
    ("a long id", json.dumps({"text": "a", "id": "x" * 129}), "bad_id", None),
    ("a flag that is none", '{"text":"a","id":1,"no_store":"yes"}', "bad_type", 1),
    ("session with a bad field", '{"type":"session","speaking_rate":99}', "bad_rate", None),
    ("binary that is no protobuf", b"{}", "bad_protobuf", None),
]


@pytest.mark.parametrize(("sent", "code", "id"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
async def test_what_can_not_be_read_is_an_error_and_the_session_goes_on(sent: str | bytes, code: str, id: Any) -> None:
    async with talking() as (_, client):
        await client.send(sent)
        end = (await hear(client)).end
        assert (end["type"], end["id"], end["error"]["code"]) == ("error", id, code)
        await say(client, text="Still here")
        assert (await hear(client)).audio == tone.audio({"text": "Still here"})


async def test_cancel_stops_at_once_and_no_byte_of_it_follows() -> None:
    """Faults 74. The cluster is in mid-speech and goes on only when the next text has been told."""
    gate = asyncio.Event()
    other = tone.audio({"text": "Another"})
    first: Script = [STREAMED + chunk(WAV[:100_000]), gate, chunk(WAV[100_000:]) + chunk(b"")]
    async with (
        ScriptedUpstream(first, [STREAMED + chunk(other) + chunk(b"")]) as peer,
        running(settings(peer.url)) as node,
        with_websockets(node.port, {}, ()) as client,
    ):
        await say(client, id="old", **LONG)
        heard = b""
        while len(heard) < 100_000:
            part = await client.next()
            assert isinstance(part, bytes)
            heard += part
        await say(client, type="cancel", id="old")
        told = await hear(client)
        assert (told.end, told.audio) == ({"type": "cancelled", "id": "old", "stopped": 1}, b"")
        await say(client, id="new", text="Another")
        told = await hear(client)
        assert (told.end["id"], told.audio) == ("new", other)
        gate.set()
        await node.fills.drain()
        assert (node.fills.sealed, node.fills.held_bytes) == (2, 0), "rule 4: the fill was finished and kept"
        await say(client, id="again", **LONG)
        told = await hear(client)
        assert (told.audio, told.end["cache"]) == (WAV, "hit")


async def test_cancel_reaches_what_waits_and_what_is_not_there() -> None:
    gate = asyncio.Event()
    script: Script = [STREAMED + chunk(WAV[:100_000]), gate, chunk(WAV[100_000:]) + chunk(b"")]
    async with (
        ScriptedUpstream(script) as peer,
        running(settings(peer.url)) as node,
        with_aiohttp(node.port, {}, ()) as client,
    ):
        await say(client, id="a", **LONG)
        assert await client.next()
        for id in ("b", "c", "b"):
            await say(client, id=id, **LONG)
        for which, stopped in [("b", 2), ("nobody", 0), (None, 2), (None, 0)]:
            await say(client, type="cancel", id=which)
            told = await hear(client, "cancelled", "error")
            assert told.end == {"type": "cancelled", "id": which, "stopped": stopped}
        gate.set()
        await say(client, id="d", **LONG)
        assert (await hear(client)).end["id"] == "d"
        results = [(each["method"], each["status"], each["exchanges"]) for each in node.tally.told()]
        assert ("WS", 499, 3) in results


async def test_rule_3_a_break_is_an_error_message() -> None:
    script: Script = [STREAMED + chunk(WAV[:100_000]), RST]
    async with (
        ScriptedUpstream(script, [STREAMED + chunk(WAV) + chunk(b"")]) as peer,
        running(settings(peer.url)) as node,
        with_websockets(node.port, {}, ()) as client,
    ):
        await say(client, id="a", **LONG)
        told = await hear(client)
        assert (told.end["type"], told.end["id"], told.end["error"]["code"]) == ("error", "a", "broken_off")
        assert WAV.startswith(told.audio)
        assert len(node._memory) == 0
        await say(client, id="b", **LONG)
        assert (await hear(client)).audio == WAV
        [broken] = [each for each in node.tally.told() if each["broken"]]
        assert (broken["method"], broken["route"], broken["status"]) == ("WS", "/ws/tts/stream", 200)


async def test_sessions_and_http_join_one_flight_in_mid_fill() -> None:
    gate = asyncio.Event()
    script: Script = [STREAMED + chunk(WAV[:100_000]), gate, chunk(WAV[100_000:]) + chunk(b"")]
    async with (
        ScriptedUpstream(script) as peer,
        running(settings(peer.url)) as node,
        with_websockets(node.port, {}, ()) as one,
        with_aiohttp(node.port, {}, ()) as two,
        aiohttp.ClientSession() as session,
    ):
        async with session.post(f"http://127.0.0.1:{node.port}/v1/tts", json=LONG) as first:
            await first.content.readexactly(100_000)
            await say(one, **LONG)
            await say(two, **LONG)
            assert isinstance(await one.next(), bytes)
            gate.set()
            rest, told = await hear(one), await hear(two)
        assert told.audio == WAV
        assert WAV.endswith(rest.audio)
        assert [rest.end["cache"], told.end["cache"]] == ["joined", "joined"]
        assert len(peer.requests) == 1


async def test_nothing_of_a_no_store_session_is_kept_or_read() -> None:
    async with house() as home:
        made = await home.say(**LONG)
        for headers, sent in [({"Cache-Control": "no-store"}, {}), ({}, {"type": "session", "no_store": True})]:
            async with LIBRARIES["aiohttp"](home.node.port, headers, ()) as client:
                if sent:
                    await say(client, **sent)
                    await say(client, type="session", no_store=False)  # what was said to be private stays so
                for asked in (LONG, {"text": "A secret"}):
                    await say(client, **asked)
                    told = await hear(client)
                    assert (told.end["cache"], told.end["key"]) == ("miss", None)
                assert told.audio == tone.audio({"text": "A secret"})
        async with LIBRARIES["aiohttp"](home.node.port, {}, ()) as client:
            await say(client, text="A secret", no_store=True)
            assert (await hear(client)).end["cache"] == "miss"
        assert len(home.node._memory) == 1
        assert home.origin.counters.syntheses == 6
        async with home.client.get(home.url + made.headers["Content-Location"]) as answer:
            assert answer.status == 200


async def test_no_cache_asks_for_a_new_take() -> None:
    async with talking(knobs={"take": True}) as (home, client):
        for no_cache in (False, True, False):
            await say(client, text="Again", no_cache=no_cache)
            await hear(client)
        assert home.origin.counters.syntheses == 2


async def test_a_sessions_own_defaults() -> None:
    async with talking() as (home, client):
        await say(client, type="session", format="pcm", sample_rate=8000)
        await say(client, text="Once", style="calm")
        asked: dict[str, Any] = {"text": "Once", "style": "calm", "format": "pcm", "sample_rate": 8000}
        assert (await hear(client)).audio == tone.audio(asked)
        await say(client, text="Once", style="calm", sample_rate=16000)
        assert (await hear(client)).audio == tone.audio({**asked, "sample_rate": 16000})
        assert home.origin.counters.syntheses == 2


@each_library
async def test_protobuf_by_subprotocol(library: str) -> None:
    async with house() as home, LIBRARIES[library](home.node.port, {}, ("edgecache.protobuf",)) as client:
        for cached in ("miss", "hit"):
            await client.send(message(**LONG, id="a"))
            spoken, complete = Spoken(), TtsStreamResponse()
            while complete.WhichOneof("event") != "complete":
                part = await client.next()
                assert isinstance(part, bytes)
                complete = TtsStreamResponse.FromString(part)
                assert complete.id == "a"
                if complete.WhichOneof("event") != "complete":
                    take(spoken, complete)
            spoken.check()
            assert (spoken.audio, spoken.ended, spoken.metadata["cache"]) == (WAV, "done", cached)
            assert (complete.complete.duration_ms, complete.complete.bytes) == (6249, len(WAV))
        await client.send(message(text=" ", id="b"))
        part = await client.next()
        assert isinstance(part, bytes)
        assert TtsStreamResponse.FromString(part).error.code == "empty_text"
        await client.send(message(type="cancel"))
        part = await client.next()
        assert isinstance(part, bytes)
        assert TtsStreamResponse.FromString(part).WhichOneof("event") == "cancelled"


# Who may open one.


async def test_keys_come_in_headers_or_as_a_subprotocol_and_never_back(tmp_path: Path) -> None:
    (ann, line), (bob, _) = new_key("ann"), new_key("bob")
    auth = Auth(keys_file=str(keys_file(tmp_path, line)))
    async with house(auth=auth) as home:
        port = home.node.port
        for headers in ({"X-API-Key": ann}, {"Authorization": f"Bearer {ann}"}):
            async with LIBRARIES["websockets"](port, headers, ()) as client:
                await say(client, text="Hello")
                assert (await hear(client)).end["type"] == "synthesis_complete"
        answer = await raw(
            port, handshake(f"Sec-WebSocket-Protocol: edgecache.json, edgecache.key.{ann}"), until_closed=False
        )
        assert b" 101 " in answer[:15]
        assert b"edgecache.json" in answer
        assert ann.encode() not in answer
        for lines in ([], [f"X-API-Key: {bob}"], [f"Sec-WebSocket-Protocol: edgecache.json, edgecache.key.{bob}"]):
            answer = await raw(port, handshake(*lines), until_closed=False)
            assert b" 401 " in answer[:15]


async def test_a_key_that_is_taken_out_is_refused_in_open_sessions_too(tmp_path: Path) -> None:
    (ann, line), (_, other) = new_key("ann"), new_key("bob")
    path = keys_file(tmp_path, line, other)
    async with (
        house(auth=Auth(keys_file=str(path))) as home,
        LIBRARIES["websockets"](home.node.port, {"X-API-Key": ann}, ()) as client,
    ):
        await say(client, text="Hello")
        assert (await hear(client)).end["type"] == "synthesis_complete"
        keys_file(tmp_path, other)
        home.node.reload_keys()
        await say(client, text="Hello")
        assert (await hear(client)).end["error"]["code"] == "invalid_api_key"


ORIGINS = [
    ([], None, 101),
    ([], "http://edge", 101),
    ([], "https://edge", 101),
    ([], "https://evil.example", 403),
    ([], "http://edge:8080", 403),
    ([], "null", 403),
    ([], "http://[", 403),
    (["https://app.example"], "https://app.example", 101),
    (["https://app.example"], "http://app.example", 403),
    (["*"], "https://anything.example", 101),
]


@pytest.mark.parametrize(("allowed", "origin", "status"), ORIGINS)
async def test_origins(allowed: list[str], origin: str | None, status: int) -> None:
    async with house(websockets=WebSockets(origins=tuple(allowed))) as home:
        lines = [] if origin is None else [f"Origin: {origin}"]
        answer = await raw(home.node.port, handshake(*lines), until_closed=False)
        assert f" {status} ".encode() in answer[:15]


NO_HANDSHAKES = [
    ("a plain GET", b"GET /ws/tts/stream HTTP/1.1\r\nHost: x\r\n\r\n", 426),
    ("a POST", b"POST /ws/tts/stream HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405),
    ("elsewhere", handshake(path="/v1/tts?text=hi"), 400),
    ("another upgrade", handshake().replace(b"Upgrade: websocket", b"Upgrade: h2c"), 426),
    ("an old version", handshake().replace(b"Version: 13", b"Version: 8"), 426),
    ("no key", handshake().replace(b"Sec-WebSocket-Key", b"X-Key"), 400),
    ("a short key", handshake().replace(b"dGhlIHNh", b""), 400),
    ("unknown subprotocols", handshake("Sec-WebSocket-Protocol: chat"), 400),
    ("a key alone as subprotocol", handshake("Sec-WebSocket-Protocol: edgecache.key.ec_secret"), 400),
]


@pytest.mark.parametrize(("sent", "status"), [row[1:] for row in NO_HANDSHAKES], ids=[row[0] for row in NO_HANDSHAKES])
async def test_rule_8_what_is_no_handshake_is_plain_http(
    sent: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with house() as home:
        answer = await raw(home.node.port, sent, until_closed=False)
        assert f" {status} ".encode() in answer[:15], answer
        assert (b"sec-websocket-version: 13" in answer.lower()) or status != 426
    assert "secret" not in caplog.text


# Bounds, and ends.


async def test_rule_7_so_many_texts_may_wait() -> None:
    gate = asyncio.Event()
    script: Script = [STREAMED + chunk(WAV[:100_000]), gate, chunk(WAV[100_000:]) + chunk(b"")]
    async with (
        ScriptedUpstream(script) as peer,
        running(settings(peer.url, websockets=WebSockets(waiting=2))) as node,
        with_websockets(node.port, {}, ()) as client,
    ):
        await say(client, id=0, **LONG)
        assert await client.next()
        for id in (1, 2, 3):
            await say(client, id=id, **LONG)
        refused = (await hear(client, "error")).end
        assert (refused["id"], refused["status"], refused["error"]["code"]) == (3, 429, "too_many_waiting")
        gate.set()
        for id in (0, 1, 2):
            assert (await hear(client)).end["id"] == id


async def test_rule_7_a_session_has_an_end(caplog: pytest.LogCaptureFixture) -> None:
    async with house(websockets=WebSockets(lifetime_s=0.2)) as home, raw_session(home.node.port) as session:
        assert await session.close_code() == 1001


@pytest.mark.parametrize("library", LIBRARIES)
async def test_draining_ends_sessions_behind_what_they_are_saying(library: str) -> None:
    gate = asyncio.Event()
    script: Script = [STREAMED + chunk(WAV[:100_000]), gate, chunk(WAV[100_000:]) + chunk(b"")]
    async with ScriptedUpstream(script) as peer, running(settings(peer.url)) as node:
        async with LIBRARIES[library](node.port, {}, ()) as client, raw_session(node.port) as idle:
            await say(client, id="a", **LONG)
            assert isinstance(await client.next(), bytes)
            await say(client, id="b", **LONG)
            await say(client, type="cancel", id="nobody")
            begin = await hear(client, "cancelled")
            draining = asyncio.ensure_future(node.drain())
            assert await idle.close_code() == 1001
            await say(client, id="c", **LONG)
            assert (await hear(client, "error")).end["error"]["code"] == "leaving"
            gate.set()
            told = await hear(client)
            assert (told.end["type"], told.end["id"]) == ("synthesis_complete", "a")
            assert WAV.endswith(begin.audio + told.audio)
            assert (await hear(client)).end["error"]["code"] == "leaving"
            assert await client.next() is None
            await draining
        assert len(node.sockets) == 0


@pytest.mark.parametrize("goodbye", ["close", "eof", "reset"])
async def test_rule_4_a_client_that_leaves_stops_nothing(goodbye: str) -> None:
    gate = asyncio.Event()
    script: Script = [STREAMED + chunk(WAV[:100_000]), gate, chunk(WAV[100_000:]) + chunk(b"")]
    async with ScriptedUpstream(script) as peer, running(settings(peer.url)) as node:
        async with raw_session(node.port) as session:
            for id in range(3):
                session.writer.write(frame(1, json.dumps({"id": id, **LONG}).encode()))
            assert (await session.frame())[0] == 2
            match goodbye:
                case "close":
                    session.writer.write(frame(8, b"\x03\xe8"))
                    assert await session.close_code() == 1000
                case "eof":
                    session.writer.write_eof()
                    assert await session.close_code() == 1006
                case _:
                    reset(session.writer)
            await _no_sessions(node)
        gate.set()
        await node.fills.drain()
        assert (node.fills.sealed, node.fills.held_bytes) == (1, 0)


async def _no_sessions(node: Node) -> None:
    async with asyncio.timeout(10):
        while len(node.sockets):
            await asyncio.sleep(0.01)


async def test_rule_7_a_client_that_reads_nothing_is_dropped() -> None:
    asked = {"text": "Too much", "demo": {"bytes": 20_000_000}}
    limits = RequestLimits(write_stall_s=0.3)
    async with house(limits=limits, websockets=PATIENT) as home:
        reader, writer = await asyncio.open_connection("127.0.0.1", home.node.port, limit=1024)
        writer.write(handshake() + frame(1, json.dumps(asked).encode()))
        await reader.readuntil(b"\r\n\r\n")
        await _no_sessions(home.node)
        writer.close()
        [counted] = [each for each in home.node.tally.told() if each["method"] == "WS"]
        assert counted["broken"] == 1


async def test_a_text_fetched_ahead_is_less_urgent_than_what_others_hear_now() -> None:
    gate = asyncio.Event()
    first: Script = [STREAMED + chunk(WAV[:100_000]), gate, chunk(WAV[100_000:]) + chunk(b"")]
    async with (
        ScriptedUpstream(first, [chunked(WAV)]) as peer,
        running(settings(peer.url, clusters=(Cluster(name="one", url=peer.url, max_in_flight=1),))) as node,
        with_websockets(node.port, {}, ()) as client,
        aiohttp.ClientSession() as session,
    ):

        async def waiting(many: int) -> None:
            while sum(node.fills.admission.waiting.values()) < many:
                await asyncio.sleep(0)

        await say(client, **LONG)
        assert isinstance(await client.next(), bytes)
        await say(client, **LONG | {"text": "Next of the session"})
        await waiting(1)
        other = asyncio.create_task(
            session.post(f"http://127.0.0.1:{node.port}/v1/tts", json=LONG | {"text": "Of another"})
        )
        await waiting(2)
        gate.set()
        async with await other as answer:
            assert await answer.read() == WAV
        await hear(client)
        assert (await hear(client)).audio == WAV
        asked = [json.loads(each.body)["text"] for each in peer.requests]
        assert asked == [LONG["text"], "Of another", "Next of the session"]
