"""The Python client: the nearest edge, another when it fails, speech as it comes, text as it is typed."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache import client as client_module
from edgecache.client import BrokenOff, Client, Distance, NoEdge, Refused
from edgecache.clusters.cluster import Timeouts
from edgecache.delivery.protobuf import delimited
from edgecache.demo import tone
from edgecache.demo.pcm import WAV_HEADER_BYTES
from edgecache.dialects.speech_pb2 import AudioChunk, StreamMetadata, TtsStreamResponse
from edgecache.heard import Begun, Ended, Event, Events, Garbled, SentenceBegun, Sound
from edgecache.speech.sentences import SentenceLengths, split
from tests.houses import house
from tests.scripted_upstream import FIN, Script, ScriptedUpstream, closed_port, head, whole

pytestmark = pytest.mark.net
TEXT = "It was a bright cold day in April. The clocks were striking thirteen, as they do. So it was."
PROBLEM = b'{"error": {"code": "busy", "message": "so it was"}}'


def refusing(status: str, *fields: str) -> list[bytes]:
    return [head(status, f"Content-Length: {len(PROBLEM)}", *fields) + PROBLEM]


async def test_speech_comes_as_it_is_made_and_is_whole() -> None:
    async with house() as home, Client([home.url + "/"]) as client:
        for hit in (False, True):
            async with client.speak("Hello", voice_id="tone", speaking_rate=1.5) as speech:
                assert (speech.media_type, speech.hit, speech.edge) == ("audio/wav", hit, home.url)
                heard = await speech.whole()
            asked: Any = {"text": "Hello", "voice_id": "tone", "speaking_rate": 1.5}
            assert tone.owner_mismatch(heard, asked) is None


async def test_it_sends_its_key() -> None:
    async with ScriptedUpstream([whole(b"RIFF")]) as edge, Client([edge.url], api_key="secret") as client:
        async with client.speak("Hello") as speech:
            await speech.whole()
        assert edge.requests[0].headers["x-api-key"] == "secret"
        assert edge.requests[0].body == b'{"text": "Hello"}'


async def test_the_nearest_edge_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedUpstream([whole(b"far")]) as far, ScriptedUpstream([whole(b"near")]) as near:
        distances = {far.url: 180.0, near.url: 20.0, "http://gone": None}
        measured: list[str] = []

        async def pretended(edge: str) -> Distance:
            measured.append(edge)
            return Distance(edge, distances[edge])

        monkeypatch.setattr(client_module, "_measured", pretended)
        async with Client(["http://gone", far.url, near.url]) as client:
            assert await client.order() == [near.url, far.url, "http://gone"]
            for _ in range(2):
                async with client.speak("Hello") as speech:
                    assert await speech.whole() == b"near"
        assert len(measured) == 3


async def test_round_trips_are_measured() -> None:
    gone = f"http://127.0.0.1:{closed_port()}"
    async with house() as home, Client([gone, home.url, "http://127.0.0.1:99999"]) as client:
        near, *others = await client.distances()
        assert near.edge == home.url
        assert near.rtt_ms is not None
        assert [each.rtt_ms for each in others] == [None, None]


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(refusing("503 Service Unavailable", "Retry-After: 1"), id="busy"),
        pytest.param(refusing("502 Bad Gateway"), id="its clusters fail"),
        pytest.param([FIN], id="hangs up"),
        pytest.param([b"SSH-2.0-what\r\n"], id="no HTTP"),
    ],
)
async def test_another_edge_is_asked_before_the_first_byte(first: Any) -> None:
    async with ScriptedUpstream(first) as failing, ScriptedUpstream([whole(b"here")]) as other:
        async with Client([failing.url, other.url]) as client:
            client._order, client._measured_s = [failing.url, other.url], asyncio.get_running_loop().time()
            async with client.speak("Hello") as speech:
                assert await speech.whole() == b"here"
            assert await client.order() == [other.url, failing.url]
        assert len(failing.requests) == 1


async def test_an_error_of_the_asker_is_told_at_once() -> None:
    async with (
        ScriptedUpstream(refusing("422 Unprocessable Content")) as edge,
        ScriptedUpstream([whole(b"x")]) as other,
    ):
        async with Client([edge.url, other.url]) as client:
            client._order, client._measured_s = [edge.url, other.url], asyncio.get_running_loop().time()
            with pytest.raises(Refused) as told:
                await client.speak("Hello").__aenter__()
        assert (told.value.status, told.value.code, str(told.value)) == (422, "busy", "422 busy: so it was")
        assert other.requests == []


async def test_when_none_answers_the_last_fault_is_told() -> None:
    busy = refusing("503 Service Unavailable", "Retry-After: 7")
    async with ScriptedUpstream(busy) as edge, Client([edge.url]) as client:
        with pytest.raises(Refused) as told:
            await client.speak("Hello").__aenter__()
    assert told.value.retry_after_s == 7
    async with Client([f"http://127.0.0.1:{closed_port()}"]) as client:
        with pytest.raises(NoEdge, match="Connection refused"):
            await client.speak("Hello").__aenter__()


async def test_an_answer_that_breaks_is_an_error_and_asked_for_nowhere_else() -> None:
    cut: Script = [head("200 OK", "Content-Type: audio/wav", "Content-Length: 100") + b"half", FIN]
    async with ScriptedUpstream(cut) as edge, ScriptedUpstream([whole(b"x")]) as other:
        async with Client([edge.url, other.url]) as client:
            client._order, client._measured_s = [edge.url, other.url], asyncio.get_running_loop().time()
            async with client.speak("Hello") as speech:
                with pytest.raises(BrokenOff):
                    await speech.whole()
        assert other.requests == []


async def test_events_say_where_each_sound_is_heard() -> None:
    async with house() as home, Client([home.url]) as client:
        for cache in ("miss", "hit"):
            begun, *sounds, ended = [each async for each in client.events("Hello", demo={"bytes": 300_000})]
            assert isinstance(begun, Begun)
            assert (begun.media_type, begun.sample_rate_hz, begun.channels, begun.cache) == (
                "audio/wav",
                24_000,
                1,
                cache,
            )
            heard = [each for each in sounds if isinstance(each, Sound)]
            assert len(heard) == len(sounds) > 1
            assert b"".join(each.audio for each in heard) == tone.audio({"text": "Hello", "demo": {"bytes": 300_000}})
            assert [each.sequence for each in heard] == [*range(len(heard))]
            offsets = [each.offset_ms or 0 for each in heard]
            assert offsets == sorted(offsets)
            assert ended == Ended(6249)


async def test_events_of_a_long_text_say_which_sentence_is_heard() -> None:
    async with house() as home, Client([home.url]) as client:
        told = [each async for each in client.events(TEXT, chunking="sentence")]
        assert [
            (each.index, TEXT[each.start : each.end].strip()) for each in told if isinstance(each, SentenceBegun)
        ] == [(n, each.spoken) for n, each in enumerate(split(TEXT, "en", SentenceLengths()))]


EVENTS = [
    pytest.param({"status": 500}, Refused, id="there is no speech"),
    pytest.param({"bytes": 300_000, "cut_after_bytes": 150_000}, (Refused, BrokenOff), id="the cluster breaks off"),
]


@pytest.mark.parametrize(("demo", "fault"), EVENTS)
async def test_events_that_break_off_are_an_error(demo: Any, fault: Any) -> None:
    async with house() as home, Client([home.url]) as client:
        heard: list[Event] = []

        async def listen() -> None:
            async for event in client.events("Hello", demo=demo):
                heard.append(event)  # noqa: PERF401 - what came before the error counts

        with pytest.raises(fault):
            await listen()
        assert not any(isinstance(each, Ended) for each in heard)


def wire(*events: TtsStreamResponse) -> bytes:
    return b"".join(delimited(each.SerializeToString()) for each in events)


WHOLE = wire(
    TtsStreamResponse(metadata=StreamMetadata(media_type="audio/wav", cache="hit")),
    TtsStreamResponse(audio=AudioChunk(audio_data=b"x" * 300, timestamp_ms=0)),
    TtsStreamResponse(audio=AudioChunk(is_final=True, timestamp_ms=7)),
)


@pytest.mark.parametrize("size", [1, 7, len(WHOLE)])
def test_events_come_however_their_bytes_fall(size: int) -> None:
    events = Events()
    found = [each for at in range(0, len(WHOLE), size) for each in events.feed(WHOLE[at : at + size])]
    assert found == [Begun("audio/wav", "", 0, 0, None, "hit", ""), Sound(b"x" * 300, 0, 0, None), Ended(7)]
    assert events.over


@given(st.binary(max_size=200), st.integers(1, 200))
def test_any_bytes_are_events_or_garbled(received: bytes, size: int) -> None:
    events = Events()
    try:
        for at in range(0, len(received), size):
            events.feed(received[at : at + size])
    except Garbled:
        return
    assert len(events._rest) <= len(received)


def test_nothing_follows_the_end() -> None:
    with pytest.raises(Garbled, match="follows the end"):
        Events().feed(WHOLE + WHOLE)


async def letters(text: str) -> AsyncIterator[str]:
    for letter in text:
        yield letter
        await asyncio.sleep(0)


async def test_typed_text_sounds_as_the_long_text_of_the_same_words() -> None:
    async with house() as home, Client([home.url]) as client:
        async with client.speak(TEXT, chunking="sentence") as speech:
            page = await speech.whole()
        typed = b"".join([sound async for sound in client.typed(letters(TEXT))])
        assert typed == page
        assert home.origin.counters.syntheses == len(split(TEXT, "en", SentenceLengths())) == 3


async def test_over_a_websocket_it_sounds_the_same() -> None:
    async with house() as home, Client([f"http://127.0.0.1:{closed_port()}", home.url]) as client:
        typed = b"".join([sound async for sound in client.typed(letters(TEXT), speaking_rate=1.5)])
        streamed = b"".join([sound async for sound in client.streamed(letters(TEXT), speaking_rate=1.5)])
        assert streamed == typed
        assert home.origin.counters.syntheses == 3


async def test_over_a_websocket_what_goes_wrong_is_told() -> None:
    async def failing() -> AsyncIterator[str]:
        yield "It was a bright cold day"
        raise ValueError("so it was")

    async with house() as home, Client([home.url]) as client:
        with pytest.raises(Refused, match="bad_rate"):
            await anext(client.streamed(letters(TEXT), speaking_rate=-1))
        with pytest.raises(ValueError, match="so it was"):
            await anext(client.streamed(failing()))
    async with ScriptedUpstream(refusing("404 Not Found")) as other, Client([other.url]) as client:
        with pytest.raises(Refused, match="no_session"):
            await anext(client.streamed(letters(TEXT)))
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_sentence_is_heard_before_the_next_is_typed() -> None:
    async with house() as home, Client([home.url]) as client:
        words: asyncio.Queue[str | None] = asyncio.Queue()

        async def typing() -> AsyncIterator[str]:
            while (word := await words.get()) is not None:
                yield word

        words.put_nowait("It was a bright cold day in April. The ")
        sounds = client.typed(typing(), format="pcm")
        first = await anext(sounds)
        assert len(first) > WAV_HEADER_BYTES
        words.put_nowait(None)
        assert [sound async for sound in sounds]


async def test_typed_text_that_can_not_be_spoken_is_an_error() -> None:
    async with house(timeouts=Timeouts(first_byte_s=1.0)) as home, Client([home.url]) as client:
        with pytest.raises(Refused):
            async for _ in client.typed(letters(TEXT), speaking_rate=-1):
                pass
        with pytest.raises(Refused):
            async for _ in client.typed(letters(TEXT), demo={"status": 500}):
                pass
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_whoever_stops_listening_leaves_nothing_behind() -> None:
    async with house() as home, Client([home.url]) as client:
        sounds = client.typed(letters(TEXT))
        await anext(sounds)
        await sounds.aclose()


def test_a_client_needs_an_edge() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Client([])


def test_it_is_imported_light() -> None:
    heavy = {"aiohttp", "redis", "uvloop", "sentencex", "yaml"}
    asks = f"import sys, edgecache.client; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", asks], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
