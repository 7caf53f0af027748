"""Long text in events and messages: each sentence announced with its place in text and time, one stream of audio."""

from typing import Any

import pytest

from edgecache.speech.sentences import SentenceLengths, split
from tests.houses import house
from tests.test_deliveries import EVENTS, each_way, say

pytestmark = pytest.mark.net

TEXT = (
    "It was a bright cold day in April, and the clocks were striking thirteen. "
    "The hallway smelt of boiled cabbage and old rag mats! "
    "今日は良い天気ですから、公園へ行きましょう。"
)
ASKED: dict[str, Any] = {"text": TEXT, "chunking": "sentence"}
SENTENCES = split(TEXT, "en", SentenceLengths())


@each_way
async def test_sentences_are_announced_and_the_audio_is_that_of_the_raw_delivery(way: str) -> None:
    async with house() as home:
        missed = await say(home, ASKED, way)
        async with home.client.post(f"{home.url}/v1/tts", json=ASKED) as answer:
            plain = await answer.read()
        hit = await say(home, ASKED, way)
        assert home.origin.counters.syntheses == len(SENTENCES)
    assert missed.audio == hit.audio == plain
    for spoken in (missed, hit):
        assert spoken.ended == "done"
        assert [each["index"] for each in spoken.sentences] == [0, 1, 2]
        assert spoken.end["duration_ms"] == sum(each["duration_ms"] for each in spoken.chunks)
    assert [missed.metadata["cache"], hit.metadata["cache"]] == ["miss", "hit"]


async def test_spans_and_offsets() -> None:
    async with house() as home:
        spoken = await say(home, ASKED, EVENTS)
    assert [(each["text_start"], each["text_end"]) for each in spoken.sentences] == [
        (each.start, each.end) for each in SENTENCES
    ]
    offsets = [each["offset_ms"] for each in spoken.sentences]
    assert offsets[0] == 0
    assert offsets == sorted(offsets)
    assert 0 < offsets[1] < offsets[2] < spoken.end["duration_ms"]


@each_way
async def test_rule_3_a_sentence_that_can_not_be_had_is_an_error_behind_what_was_heard(way: str) -> None:
    async with house() as home:
        await say(home, {"text": SENTENCES[0].spoken}, way)
        home.origin.knobs = type(home.origin.knobs)(voice="tone", status=500)
        spoken = await say(home, ASKED, way)
    assert spoken.ended == "error"
    assert [each["index"] for each in spoken.sentences] == [0]
    assert spoken.audio


@each_way
async def test_before_the_first_sound_an_error_is_plain_http(way: str) -> None:
    async with house(knobs={"status": 500}) as home:
        headers = {"Accept": way}
        async with home.client.post(f"{home.url}/v1/tts/stream", json=ASKED, headers=headers) as answer:
            assert answer.status in (502, 503)  # it is asked again, and may be left alone by then
            assert answer.headers["Content-Type"] == "application/problem+json"
        nothing = {"text": "... !", "chunking": "sentence"}
        async with home.client.post(f"{home.url}/v1/tts/stream", json=nothing, headers=headers) as answer:
            assert answer.status == 400
