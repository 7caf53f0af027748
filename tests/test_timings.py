"""When which word is heard: as a cluster tells it beside the audio, checked, kept with the recording, told on hits."""

import asyncio
import json
import re
from typing import Any

import aiohttp
import msgspec
import pytest

from edgecache.cache.key import Key
from edgecache.cache.recording import Facts, Recording, frame, unframe
from edgecache.client import Client
from edgecache.demo import espeak
from edgecache.fill.longform import Ended, LongForm, LongText, all_of, sentence_wish
from edgecache.speech.sentences import SentenceLengths
from edgecache.speech.timings import Mark, Timings, read
from tests.edge_rig import built, wish
from tests.houses import house, running, settings
from tests.scripted_clusters import WAV, Reply
from tests.scripted_upstream import FIN, HOLD, Script, ScriptedUpstream, chunk, head, whole

TOLD = {
    "words": [
        {"begins_ms": 0, "ends_ms": 100, "start": 0, "end": 3},
        {"begins_ms": 100, "ends_ms": 384, "start": 4, "end": 6},
    ],
    "sentences": [{"begins_ms": 0, "ends_ms": 384, "start": 0, "end": 7}],
}
TIMINGS = Timings((Mark(0, 100, 0, 3), Mark(100, 384, 4, 6)), (Mark(0, 384, 0, 7),))
BODY = json.dumps(TOLD).encode()
TEXT = "One is."


def marks(*rows: tuple[Any, Any, Any, Any]) -> bytes:
    names = ("begins_ms", "ends_ms", "start", "end")
    return json.dumps({"words": [dict(zip(names, row, strict=True)) for row in rows]}).encode()


def test_what_a_cluster_tells_is_read_and_told_alike() -> None:
    assert read(BODY, 7, 384) == TIMINGS
    assert TIMINGS.told() == TOLD
    assert read(json.dumps({**TOLD, "visemes": [1]}).encode(), 7, None) == TIMINGS


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html>", id="no JSON"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b"[" * 100_000, id="nested without end"),
        pytest.param(b'{"words": 1}', id="no list"),
        pytest.param(marks((0, 1, 0, "1")), id="no number"),
        pytest.param(marks((0, 1.5, 0, 1)), id="no whole number"),
        pytest.param(marks((-1, 1, 0, 1)), id="before the beginning"),
        pytest.param(marks((2, 1, 0, 1)), id="backwards"),
        pytest.param(marks((0, 2000, 0, 1)), id="after the end"),
        pytest.param(marks((0, 1, 1, 1)), id="of no text"),
        pytest.param(marks((0, 1, -1, 1)), id="before the text"),
        pytest.param(marks((0, 1, 6, 8)), id="behind the text"),
        pytest.param(marks((5, 9, 0, 1), (4, 9, 1, 2)), id="out of order"),
        pytest.param(marks(*[(0, 1, 0, 1)] * 8), id="more than letters"),
        pytest.param(marks((0, 1 << 70, 0, 1)), id="a number too large"),
    ],
)
def test_what_can_not_be_true_is_dropped_whole(told: bytes) -> None:
    assert read(told, 7, 384) == Timings()


def test_timings_within_a_longer_text() -> None:
    assert TIMINGS.moved(1000, 20).words == (Mark(1000, 1100, 20, 23), Mark(1100, 1384, 24, 26))


# Kept with the recording.

FACTS = Facts("audio/wav", "wav", 384, 8000, 1, 1.0, 2.0, 3.0, "c0", "tag")
KEY = Key("ab" * 32)


def test_a_recording_keeps_them() -> None:
    made = Recording(KEY, "n", b"canonical", msgspec.structs.replace(FACTS, timings=TIMINGS), b"audio")
    assert unframe(KEY, frame(made)) == made
    assert made.size_bytes > Recording(KEY, "n", b"canonical", FACTS, b"audio").size_bytes


def test_facts_from_before_there_were_timings_are_read_without() -> None:
    before = msgspec.msgpack.encode(list(msgspec.to_builtins(FACTS))[:10])
    assert msgspec.msgpack.decode(before, type=Facts) == FACTS
    assert FACTS.timings == Timings()


# Asked for, and told on.


def telling(where: str = "/v1/timings/x1", body: bytes = WAV) -> Script:
    fields = ("Content-Type: audio/wav", "Transfer-Encoding: chunked", f"Speech-Timings: {where}")
    return [head("200 OK", *fields) + chunk(body) + chunk(b"")]


@pytest.mark.net
async def test_they_are_asked_for_when_the_audio_is_over_and_told_on_hits() -> None:
    beside = whole(BODY, "application/json")
    async with ScriptedUpstream(telling(), [beside]) as cluster, running(settings(cluster.url)) as node:
        url = f"http://127.0.0.1:{node.port}"
        async with Client([url]) as client:
            async with client.speak(TEXT) as miss:
                assert await miss.whole() == WAV
            assert "Link" not in miss.headers
            assert await client.timings(miss) == TOLD
            async with client.speak(TEXT) as hit:
                await hit.whole()
            where = hit.headers["Content-Location"]
            assert hit.headers["Link"] == f'<{where}/timings>; rel="describedby"; type="application/json"'
            assert await client.timings(hit) == TOLD
            assert client._session is not None
            async with client._session.head(f"{url}{where}/timings") as answer:
                assert (answer.status, await answer.read()) == (200, b"")
            async with client._session.get(f"{url}/v1/audio/{'0' * 64}/timings") as answer:
                assert answer.status == 404
        asked = cluster.requests[1]
        assert (asked.method, asked.target, asked.body) == ("GET", "/v1/timings/x1", b"")


@pytest.mark.net
@pytest.mark.parametrize(
    ("where", "beside", "requests"),
    [
        pytest.param("//elsewhere.example/x", [], 1, id="another server"),
        pytest.param("http://elsewhere.example/x", [], 1, id="a whole URL"),
        pytest.param("/a b", [], 1, id="no path"),
        pytest.param("/x", [head("404 Not Found", "Content-Length: 0")], 2, id="not there"),
        pytest.param("/x", [head("302 Found", "Location: /y", "Content-Length: 0")], 2, id="elsewhere"),
        pytest.param("/x", [whole(b"{")], 2, id="no JSON"),
        pytest.param("/x", [whole(marks((0, 9999, 0, 1)))], 2, id="not true"),
        pytest.param("/x", [head("200 OK", "Content-Length: 99") + b"{", FIN], 2, id="cut"),
        pytest.param("/x", [head("200 OK") + BODY, FIN], 2, id="without a length"),
        pytest.param("/x", [head("200 OK", "Content-Length: 2000000") + b" " * 2_000_000], 2, id="without end"),
        pytest.param("/x", [HOLD], 2, id="silent"),
    ],
)
async def test_whatever_is_wrong_with_them_the_audio_is_kept(where: str, beside: Any, requests: int) -> None:
    async with ScriptedUpstream(telling(where), beside) as cluster, running(settings(cluster.url)) as node:
        async with Client([f"http://127.0.0.1:{node.port}"]) as client:
            async with client.speak(TEXT) as miss:
                assert await miss.whole() == WAV
            async with client.speak(TEXT) as hit:
                assert hit.hit
                assert "Link" not in hit.headers
                await hit.whole()
            assert await client.timings(hit) is None
        assert len(cluster.requests) == requests
        assert node.fills.sealed == 1


@pytest.mark.net
async def test_events_and_messages_tell_them_on_misses_and_on_hits() -> None:
    """Each sentence's own, where it is in the whole text and the whole sound; alike in both deliveries."""
    moved = TIMINGS.moved(384, 8).told()
    both = {name: [*TOLD[name], *moved[name]] for name in TOLD}
    many = LongText(lengths=SentenceLengths(min_characters=1))
    script = [telling(), [whole(BODY, "application/json")]]
    async with (
        ScriptedUpstream(*script) as cluster,
        running(settings(cluster.url, long_text=many)) as node,
        aiohttp.ClientSession(f"http://127.0.0.1:{node.port}") as client,
    ):
        for _ in ("miss", "hit"):
            assert await told_in_events(client, text=TEXT) == TOLD
        assert await told_in_messages(client, text=TEXT) == TOLD
        assert await told_in_events(client, text="One is. One is.", chunking="sentence") == both
        assert await told_in_messages(client, text="One is. One is.", chunking="sentence") == both
        assert len(cluster.requests) == 2


async def told_in_events(client: aiohttp.ClientSession, **asked: str) -> Any:
    async with client.post("/v1/tts/stream", json=asked, headers={"Accept": "text/event-stream"}) as answer:
        done = (await answer.text()).partition("event: done\ndata: ")[2]
    return json.loads(done)["timings"]


async def told_in_messages(client: aiohttp.ClientSession, **asked: str) -> Any:
    async with client.ws_connect("/ws/tts/stream") as session:
        await session.send_json(asked)
        while (message := await session.receive()).type is not aiohttp.WSMsgType.CLOSED:
            if message.type is aiohttp.WSMsgType.TEXT and "synthesis_complete" in message.data:
                return json.loads(message.data)["timings"]
    return None


@pytest.mark.net
async def test_no_store_asks_for_none() -> None:
    async with house() as home:
        heard = await home.say(TEXT, headers={"Cache-Control": "no-store"})
        assert heard.whole
    async with ScriptedUpstream(telling()) as cluster, running(settings(cluster.url)) as node:
        async with Client([f"http://127.0.0.1:{node.port}"]) as client:
            assert client._session is not None
            async with client._session.post(
                f"http://127.0.0.1:{node.port}/v1/tts", json={"text": TEXT}, headers={"Cache-Control": "no-store"}
            ) as answer:
                await answer.read()
        assert len(cluster.requests) == 1


async def test_each_sentence_of_a_long_text_has_its_own_within_the_whole() -> None:
    made = built(Reply([WAV], more=BODY))
    whole_text = wish("One is.  Two is.")
    form = LongForm(made.edge.speak, lambda sentence, now: sentence_wish(whole_text, sentence, now=now), 1)
    for _ in ("miss", "hit"):
        form = LongForm(made.edge.speak, lambda sentence, now: sentence_wish(whole_text, sentence, now=now), 1)
        pieces = form.pieces(all_of("One is.  Two is.", "en", SentenceLengths(min_characters=1)))
        ended = [piece async for piece in pieces if isinstance(piece, Ended)]
        assert [each.timings.words for each in ended] == [
            (Mark(0, 100, 0, 3), Mark(100, 384, 4, 6)),
            (Mark(384, 484, 9, 12), Mark(484, 768, 13, 15)),
        ]
    await made.fills.drain()


# The demo cluster.


@pytest.mark.net
@pytest.mark.skipif(not espeak.tells_timings(), reason="needs edgecache[demo]: the espeak-ng program tells none")
async def test_espeak_tells_when_its_words_are_heard() -> None:
    text = "Hëllo wörld, it costs 3.5 euros. The next sentence!"
    async with house(knobs={"voice": "espeak-ng"}) as home, Client([home.url]) as client:
        async with client.speak(text) as speech:
            sound = await speech.whole()
        told = await client.timings(speech)
    assert told is not None
    words = [text[each["start"] : each["end"]] for each in told["words"]]
    assert words[:3] == ["Hëllo", "wörld", "it"]
    assert {"The", "next", "sentence"} <= set(words)
    assert [text[each["start"] : each["end"]].strip() for each in told["sentences"]] == re.split(r"(?<=\.) (?=T)", text)
    lasted_ms = (len(sound) - 44) / 2 / espeak.RATE_HZ * 1000
    assert 0.7 * lasted_ms < told["words"][-1]["ends_ms"] <= lasted_ms + 1


@pytest.mark.net
async def test_the_tone_voice_tells_none() -> None:
    async with house() as home, Client([home.url]) as client:
        async with client.speak(TEXT) as speech:
            await speech.whole()
        assert await client.timings(speech) is None
        await asyncio.sleep(0)
