"""Text that comes bit by bit over a WebSocket: sentences spoken as they are complete, in order, hits and misses mixed."""

import asyncio
import json
from typing import Any

import pytest

from edgecache.demo import tone
from edgecache.demo.pcm import WAV_HEADER_BYTES
from edgecache.fill.longform import LongText
from edgecache.speech.sentences import SentenceLengths, split
from tests.houses import house, running, settings
from tests.scripted_upstream import Script, ScriptedUpstream, chunk, head
from tests.sockets import LIBRARIES, Told, hear, say

pytestmark = pytest.mark.net

TEXT = (
    "It was a bright cold day in April, and the clocks were striking thirteen. "
    "The hallway smelt of boiled cabbage and old rag mats! "
    "At one end of it a coloured poster had been tacked to the wall."
)
CUT = split(TEXT, "en", SentenceLengths())
SENTENCES = [each.spoken for each in CUT]
STREAMED = head("200 OK", "Content-Type: audio/wav", "Transfer-Encoding: chunked")


def sound(sentence: str, **others: Any) -> bytes:
    return tone.audio({"text": sentence, **others})[WAV_HEADER_BYTES:]


def check(told: Told, sentences: list[str] = SENTENCES) -> None:
    """The sound of these sentences, in this order, framed once."""
    assert told.end["type"] == "synthesis_complete", told.end
    assert told.audio[WAV_HEADER_BYTES:] == b"".join(sound(each) for each in sentences)
    assert [each["index"] for each in told.before] == list(range(len(sentences)))
    assert max(told.frames) <= 4096


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("step", [1, 7, len(TEXT)])
async def test_sentences_do_not_depend_on_how_the_text_came(library: str, step: int) -> None:
    async with house() as home, LIBRARIES[library](home.node.port, {}, ()) as client:
        made = await home.say(SENTENCES[1])  # one of them is a hit
        assert made.whole
        for at in range(0, len(TEXT), step):
            await say(client, type="text", id="a", text=TEXT[at : at + step])
        await say(client, type="flush")
        told = await hear(client)
        check(told)
        assert (told.end["id"], told.end["cache"]) == ("a", "miss")
        spans = [(each["text_start"], each["text_end"]) for each in told.before]
        assert spans == [(each.start, each.end) for each in CUT]
        assert home.origin.counters.syntheses == 3
        await say(client, type="text", text=TEXT)
        await say(client, type="flush")
        again = await hear(client)
        check(again)
        assert (again.end["id"], again.end["cache"]) == (None, "hit")
        assert home.origin.counters.syntheses == 3


async def test_a_sentence_is_spoken_before_the_text_is_whole_and_the_next_is_fetched_ahead() -> None:
    """The first goes on only when the second has been asked for."""
    first = tone.audio({"text": SENTENCES[0]})
    gate = asyncio.Event()
    scripts: list[Script] = [
        [STREAMED + chunk(first[:2000]), gate, chunk(first[2000:]) + chunk(b"")],
        [STREAMED + chunk(tone.audio({"text": SENTENCES[1]})) + chunk(b"")],
        [STREAMED + chunk(tone.audio({"text": SENTENCES[2]})) + chunk(b"")],
    ]
    async with (
        ScriptedUpstream(*scripts) as peer,
        running(settings(peer.url)) as node,
        LIBRARIES["websockets"](node.port, {}, ()) as client,
    ):
        await say(client, type="text", text=TEXT[: CUT[1].start + 5])
        begun = await client.next()
        assert isinstance(begun, str)
        assert json.loads(begun)["type"] == "sentence"
        heard = await client.next()
        assert isinstance(heard, bytes), "the first sentence is heard, and the second is not even written"
        await say(client, type="text", text=TEXT[CUT[1].start + 5 : CUT[2].start + 5])
        await peer.asked(2)
        gate.set()
        await say(client, type="text", text=TEXT[CUT[2].start + 5 :])
        await say(client, type="flush")
        told = await hear(client)
        told.audio = heard + told.audio
        told.before.insert(0, json.loads(begun))
        check(told)


async def test_a_text_of_its_own_ends_one_that_was_begun() -> None:
    async with house() as home, LIBRARIES["aiohttp"](home.node.port, {}, ()) as client:
        await say(client, type="text", id="a", text=SENTENCES[0])
        await say(client, type="text", id="b", text=SENTENCES[1])
        await say(client, id="c", text="A text of its own")
        for id in ("a", "b", "c"):
            told = await hear(client)
            assert (told.end["type"], told.end["id"]) == ("synthesis_complete", id)
        assert told.audio == tone.audio({"text": "A text of its own"})


async def test_cancel_stops_a_text_that_is_still_coming() -> None:
    async with house() as home, LIBRARIES["aiohttp"](home.node.port, {}, ()) as client:
        await say(client, type="text", id="a", text=TEXT[: CUT[1].start + 30])
        assert await client.next()
        await say(client, type="cancel")
        told = await hear(client, "cancelled")
        assert told.end["stopped"] == 1
        await say(client, type="text", id="b", text=SENTENCES[1])
        await say(client, type="flush")
        told = await hear(client)
        check(told, SENTENCES[1:2])
        assert told.end["id"] == "b"


async def test_a_long_text_is_spoken_sentence_by_sentence_without_being_asked() -> None:
    async with (
        house(long_text=LongText(from_characters=100)) as home,
        LIBRARIES["websockets"](home.node.port, {}, ()) as client,
    ):
        await say(client, text=TEXT)
        check(await hear(client))
        await say(client, text=TEXT, chunking="none")
        told = await hear(client)
        assert (told.audio, told.before) == (tone.audio({"text": TEXT}), [])


async def test_nothing_of_a_no_store_text_is_kept() -> None:
    async with house() as home, LIBRARIES["websockets"](home.node.port, {"Cache-Control": "no-store"}, ()) as client:
        for _ in range(2):
            await say(client, type="text", text=TEXT)
            await say(client, type="flush")
            check(await hear(client))
        assert len(home.node._memory) == 0
        assert home.origin.counters.syntheses == 6


async def test_what_is_refused_and_that_the_session_goes_on() -> None:
    rows: list[tuple[dict[str, Any], str]] = [
        ({"type": "flush"}, "nothing_to_flush"),
        ({"type": "text"}, "bad_text"),
        ({"type": "text", "text": 7}, "bad_text"),
        ({"type": "text", "text": "x", "speaking_rate": 99}, "bad_rate"),
        ({"type": "text", "text": "x", "format": "opus"}, "not_joinable"),
        ({"type": "text", "text": "x" * 300}, "text_too_long"),
    ]
    async with (
        house(long_text=LongText(max_characters=250)) as home,
        LIBRARIES["websockets"](home.node.port, {}, ()) as client,
    ):
        for sent, code in rows:
            await say(client, **sent)
            assert (await hear(client)).end["error"]["code"] == code, sent
        await say(client, type="text", text=" ... ")
        await say(client, type="flush")
        assert (await hear(client)).end["error"]["code"] == "empty_text"
        await say(client, type="text", text=TEXT)
        await say(client, type="text", text="x" * 200)
        assert (await hear(client, "error")).end["error"]["code"] == "text_too_long"
        await say(client, type="flush")
        assert (await hear(client)).end["type"] == "synthesis_complete"


async def test_draining_ends_a_text_that_is_still_coming() -> None:
    async with house() as home, LIBRARIES["websockets"](home.node.port, {}, ()) as client:
        await say(client, type="text", text=SENTENCES[0] + " " + SENTENCES[1])
        begun = await client.next()
        assert isinstance(begun, str)
        draining = asyncio.ensure_future(home.node.drain())
        told = await hear(client)
        told.before.insert(0, json.loads(begun))
        check(told, SENTENCES[:2])
        assert await client.next() is None
        await draining
        assert home.node.fills.held_bytes == 0
