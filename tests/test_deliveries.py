"""One recording, many ways to hear it: the same bytes in each, from a recording, from a flight, joined, and broken off."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest

from edgecache.demo import tone
from tests.houses import Heard, House, house, raw, running, settings
from tests.scripted_upstream import FIN, RST, Script, ScriptedUpstream, chunk, head
from tests.spoken import Spoken, of_events, of_messages
from tests.test_protobuf import message

pytestmark = pytest.mark.net

EVENTS, MESSAGES = "text/event-stream", "application/x-protobuf"
READERS = {EVENTS: of_events, MESSAGES: of_messages}
each_way = pytest.mark.parametrize("way", READERS)
LONG: dict[str, Any] = {"text": "One recording, many ways", "demo": {"bytes": 300_000}}
DURATION_MS = round((300_000 - 44) / 48)


async def told(url: str, asked: Mapping[str, Any], way: str, client: aiohttp.ClientSession, **headers: str) -> Spoken:
    """The answer in this way, from its head to its end."""
    async with client.post(f"{url}/v1/tts/stream", json=asked, headers={"Accept": way, **headers}) as answer:
        body = await answer.read()
        assert answer.status == 200, body
        assert answer.headers["Content-Type"].startswith(way)
        assert "ETag" not in answer.headers
        return READERS[way](body)


async def say(home: House, asked: Mapping[str, Any], way: str, **headers: str) -> Spoken:
    return await told(home.url, asked, way, home.client, **headers)


@each_way
async def test_a_miss_and_a_hit_are_the_same_recording(way: str) -> None:
    async with house() as home:
        missed, hit = await say(home, LONG, way), await say(home, LONG, way)
        plain = await home.say(**LONG)
    assert missed.audio == hit.audio == plain.body == tone.audio(LONG)
    assert [missed.ended, hit.ended] == ["done", "done"]
    assert [missed.metadata["cache"], hit.metadata["cache"]] == ["miss", "hit"]
    assert [missed.metadata["duration_ms"], hit.metadata["duration_ms"]] == [None, DURATION_MS]
    assert [missed.end["duration_ms"], hit.end["duration_ms"]] == [DURATION_MS] * 2
    for spoken in (missed, hit):
        assert (spoken.metadata["sample_rate"], spoken.metadata["channels"]) == (24000, 1)
        assert spoken.metadata["format"] == "wav"
        assert sum(each["duration_ms"] for each in spoken.chunks) == DURATION_MS
        assert plain.headers["Content-Location"] == f"/v1/audio/{spoken.metadata['key']}"
    assert home.origin.counters.syntheses == 1


async def test_all_ways_join_one_flight_in_mid_fill_and_hear_the_same() -> None:
    wav, gate = tone.audio(LONG), asyncio.Event()
    begun = head("200 OK", "Content-Type: audio/wav", "Transfer-Encoding: chunked") + chunk(wav[:100_000])
    async with (
        ScriptedUpstream([begun, gate, chunk(wav[100_000:]) + chunk(b"")]) as peer,
        running(settings(peer.url)) as node,
        aiohttp.ClientSession() as client,
    ):
        url = f"http://127.0.0.1:{node.port}"
        async with client.post(f"{url}/v1/tts", json=LONG) as first:
            assert await first.content.readexactly(100_000) == wav[:100_000]
            joining = [asyncio.ensure_future(told(url, LONG, way, client)) for way in READERS]
            while node.fills.joined < len(joining):
                await asyncio.sleep(0.01)
            gate.set()
            joined = await asyncio.gather(*joining)
            assert wav == wav[:100_000] + await first.read()
        assert len(peer.requests) == 1
    for spoken in joined:
        assert (spoken.audio, spoken.ended, spoken.metadata["cache"]) == (wav, "done", "joined")
        assert spoken.end["duration_ms"] == DURATION_MS


@each_way
async def test_rule_3_a_break_is_told_in_the_way_of_the_delivery(way: str) -> None:
    wav = tone.audio(LONG)
    script: Script = [
        head("200 OK", "Content-Type: audio/wav", "Transfer-Encoding: chunked") + chunk(wav[:100_000]),
        RST,
    ]
    async with (
        ScriptedUpstream(script) as peer,
        running(settings(peer.url)) as node,
        aiohttp.ClientSession() as client,
    ):
        spoken = await told(f"http://127.0.0.1:{node.port}", LONG, way, client)
        assert len(node._memory) == 0
        [counted] = node.tally.told()
    assert spoken.ended == "error"
    assert (spoken.end["status"], spoken.end["error"]["code"]) == (502, "broken_off")
    assert wav.startswith(spoken.audio)
    assert (counted["route"], counted["status"], counted["result"]) == ("/v1/tts/stream", 200, "miss")
    assert (counted["exchanges"], counted["broken"]) == (1, 1)


@each_way
async def test_a_connection_goes_on_behind_a_break_that_was_told(way: str) -> None:
    """Found by bench.soak: it was closed without a word, and a client that had asked again was reset."""
    body = json.dumps({"text": "Broken off", "demo": {"bytes": 50_000, "cut_after_bytes": 9_000}}).encode()
    asked = f"POST /v1/tts/stream HTTP/1.1\r\nHost: x\r\nAccept: {way}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    async with house() as home:
        reader, writer = await asyncio.open_connection("127.0.0.1", home.node.port)
        writer.write(asked + body)
        got_head = await reader.readuntil(b"\r\n\r\n")
        assert b"connection: close" not in got_head.lower()
        assert b"broken_off" in await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()


@each_way
async def test_before_the_first_audio_an_error_is_plain_http(way: str) -> None:
    async with house() as home:
        asked = {"text": "no", "demo": {"status": 500}}
        async with home.client.post(f"{home.url}/v1/tts/stream", json=asked, headers={"Accept": way}) as answer:
            assert (answer.status, answer.headers["Content-Type"]) == (502, "application/problem+json")
            assert json.loads(await answer.read())["error"]["code"] == "bad_cluster_answer"


@each_way
async def test_directives_hold_in_every_way(way: str) -> None:
    async with house() as home:
        spoken = await say(home, LONG, way, **{"Cache-Control": "no-store"})
        assert (spoken.metadata["cache"], spoken.metadata["key"]) == ("miss", None)
        assert len(home.node._memory) == 0
        async with home.client.post(
            f"{home.url}/v1/tts/stream", json=LONG, headers={"Accept": way, "Cache-Control": "only-if-cached"}
        ) as answer:
            assert answer.status == 504


@each_way
async def test_over_http_1_0_the_framing_says_where_it_ends(way: str) -> None:
    async with house() as home:
        body = json.dumps(LONG).encode()
        sent = f"POST /v1/tts/stream HTTP/1.0\r\nAccept: {way}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        got_head, _, got = (await raw(home.node.port, sent)).partition(b"\r\n\r\n")
        assert b"chunked" not in got_head.lower()
        spoken = READERS[way](got)
        assert (spoken.audio, spoken.ended) == (tone.audio(LONG), "done")


async def test_a_protobuf_request_asks_for_the_same_recording_as_the_json() -> None:
    asked: dict[str, Any] = {"text": "In either spelling", "voice_id": "tone", "speaking_rate": 0.9, "style": "calm"}
    async with house() as home:
        made = await home.say(**asked)
        for path, way in [("/v1/tts", "*/*"), ("/v1/tts/stream", MESSAGES), ("/v1/tts/stream", "audio/*")]:
            headers = {"Content-Type": MESSAGES, "Accept": way}
            async with home.client.post(home.url + path, data=message(**asked), headers=headers) as answer:
                body = await answer.read()
                assert answer.status == 200, body
                assert "; hit;" in answer.headers["Cache-Status"]
                assert (of_messages(body).audio if way == MESSAGES else body) == made.body
        assert home.origin.counters.syntheses == 1


async def test_the_fast_lane_leaves_other_ways_and_spellings_alone() -> None:
    """It knows this body well, and what it would answer with: raw audio."""
    asked = {"text": "Said before", "demo": {"bytes": 4096}}
    async with house() as home:
        for _ in range(4):
            async with home.client.post(f"{home.url}/v1/tts/stream", json=asked) as answer:
                plain = await Heard.of(answer, asked)
        lane = home.node.status()["fast_lane"]
        assert isinstance(lane, dict)
        assert lane["answered"]
        for way in READERS:
            spoken = await say(home, asked, way)
            assert (spoken.audio, spoken.metadata["cache"]) == (plain.body, "hit")
        body = json.dumps(asked).encode()
        headers = {"Content-Type": MESSAGES}
        for _ in range(3):
            async with home.client.post(f"{home.url}/v1/tts/stream", data=body, headers=headers) as answer:
                assert answer.status == 400
        raw_body = message(text="Said before", demo={"bytes": 4096})
        for _ in range(3):
            async with home.client.post(f"{home.url}/v1/tts", data=raw_body, headers=headers) as answer:
                assert await answer.read() == plain.body
        async with home.client.post(f"{home.url}/v1/tts", data=raw_body) as answer:
            assert answer.status == 400, "without its Content-Type it is no JSON"


async def test_a_client_that_goes_away_stops_nothing() -> None:
    """Rule 4, for a framed answer: the fill is finished and kept."""
    wav, gate = tone.audio(LONG), asyncio.Event()
    begun = head("200 OK", "Content-Type: audio/wav", "Transfer-Encoding: chunked") + chunk(wav[:100_000])
    async with (
        ScriptedUpstream([begun, gate, chunk(wav[100_000:]) + chunk(b""), FIN]) as peer,
        running(settings(peer.url)) as node,
    ):
        url = f"http://127.0.0.1:{node.port}"
        async with aiohttp.ClientSession() as client:
            asking = client.post(f"{url}/v1/tts/stream", json=LONG, headers={"Accept": EVENTS})
            async with asking as answer:
                await answer.content.readany()
        gate.set()
        await node.fills.drain()
        async with aiohttp.ClientSession() as client:
            spoken = await told(url, LONG, MESSAGES, client)
        assert (spoken.audio, spoken.metadata["cache"]) == (wav, "hit")
        assert node.fills.held_bytes == 0
