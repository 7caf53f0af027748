"""Long text over HTTP, through real sockets: sentence by sentence, each a recording of its own, in one body that plays."""

import asyncio
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edgecache.client import Client
from edgecache.clusters.cluster import Timeouts
from edgecache.delivery.limits import RequestLimits
from edgecache.demo.pcm import WAV_HEADER_BYTES
from edgecache.fill.longform import LongText
from edgecache.speech.formats import Measured
from edgecache.speech.sentences import SentenceLengths, split
from tests.houses import House, cluster, house, running, settings
from tests.scripted_upstream import ScriptedUpstream, whole
from tests.sounds import SOUND, UNKNOWN, chunk, fmt, riff, verdict

pytestmark = pytest.mark.net
TEXT = (
    "It was a bright cold day in April, and the clocks were striking thirteen. "
    "Dr. Smith slipped through the glass doors of 3.5 buildings, though not quickly enough. "
    "The hallway smelt of boiled cabbage and old rag mats! "
    "今日は良い天気ですから、公園へ行きましょう。"
)
SENTENCES = [each.spoken for each in split(TEXT, "en", SentenceLengths())]
BY_SENTENCE: Any = {"chunking": "sentence"}


async def post(home: House, path: str = "/v1/tts", *, headers: Any = None, **asked: Any) -> "Answer":
    async with home.client.post(home.url + path, json=asked, headers=headers) as answer:
        body, whole = b"", True
        try:
            while chunk := await answer.content.readany():
                body += chunk
        except aiohttp.ClientError:
            whole = False
        return Answer(answer.status, answer.headers, body, whole)


class Answer:
    def __init__(self, status: int, headers: Any, body: bytes, whole: bool) -> None:
        self.status, self.headers, self.body, self.whole = status, headers, body, whole


async def alone(home: House, sentence: str, **others: Any) -> bytes:
    """A sentence as its own recording, without its WAV head; its owner is checked on the way."""
    heard = await home.say(sentence, **others)
    assert "; hit;" in heard.cache
    return heard.body[WAV_HEADER_BYTES:] if heard.headers["Content-Type"] == "audio/wav" else heard.body


async def test_it_is_the_sound_of_its_sentences_framed_once() -> None:
    async with house() as home:
        for path in ("/v1/tts", "/v1/tts/stream"):
            heard = await post(home, path, text=TEXT, **BY_SENTENCE)
            assert (heard.status, heard.whole, heard.headers["Content-Type"]) == (200, True, "audio/wav")
            assert heard.body[WAV_HEADER_BYTES:] == b"".join([await alone(home, each) for each in SENTENCES])
            assert heard.body[:4] == b"RIFF"
        assert "Content-Length" not in heard.headers
        assert "ETag" not in heard.headers
        assert "Content-Location" not in heard.headers
        assert heard.headers["Cache-Status"].startswith("test-edge; hit;")
        assert len(SENTENCES) == 4
        assert home.origin.counters.syntheses == 4


async def test_only_a_changed_sentence_is_synthesized_again() -> None:
    async with house() as home:
        await post(home, text=TEXT, **BY_SENTENCE)
        heard = await post(home, text=TEXT.replace("cabbage", "potatoes"), **BY_SENTENCE)
        assert heard.whole
        assert home.origin.counters.syntheses == len(SENTENCES) + 1


@pytest.mark.parametrize("asked", [{"format": "pcm"}, {"format": "pcm", "sample_rate": 8000}])
async def test_headerless_samples(asked: dict[str, Any]) -> None:
    async with house() as home:
        heard = await post(home, text=TEXT, **asked, **BY_SENTENCE)
        assert heard.body == b"".join([await alone(home, each, **asked) for each in SENTENCES])


@pytest.mark.parametrize(
    ("from_characters", "chunking", "syntheses"),
    [
        pytest.param(len(TEXT), None, 1, id="short"),
        pytest.param(len(TEXT) - 1, None, 4, id="long"),
        pytest.param(len(TEXT), "sentence", 4, id="short but asked for"),
        pytest.param(1, "none", 1, id="long but not wanted"),
    ],
)
async def test_when_text_is_long(from_characters: int, chunking: str | None, syntheses: int) -> None:
    async with house(long_text=LongText(from_characters=from_characters)) as home:
        assert (await post(home, text=TEXT, chunking=chunking)).whole
        assert home.origin.counters.syntheses == syntheses


async def test_the_directive_is_in_no_key_and_is_not_forwarded() -> None:
    async with house() as home:
        made = await home.say("Short enough to be one sentence.")
        assert (
            "; hit;"
            in (await post(home, text="Short enough to be one sentence.", chunking="none")).headers["Cache-Status"]
        )
        heard = await post(home, text="Short enough to be one sentence.", **BY_SENTENCE)
        assert heard.body[WAV_HEADER_BYTES:] == made.body[WAV_HEADER_BYTES:]
        assert home.origin.counters.syntheses == 1


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({"text": TEXT, "chunking": "words"}, 400, "bad_chunking"),
        ({"text": TEXT, "chunking": 1}, 400, "bad_chunking"),
        ({"text": TEXT, "format": "opus", **BY_SENTENCE}, 422, "not_joinable"),
        ({"text": "x" * 600, "format": "flac"}, 422, "not_joinable"),
        ({"text": "x" * 600, "chunking": "none"}, 413, "text_too_long"),
        ({"text": "x" * 2000}, 413, "text_too_long"),
        ({"text": "x" * 2000, **BY_SENTENCE}, 413, "text_too_long"),
        ({"text": " ...", **BY_SENTENCE}, 400, "empty_text"),
    ],
)
async def test_what_is_refused(asked: dict[str, Any], status: int, code: str) -> None:
    few = LongText(from_characters=300, max_characters=1000)
    async with house(long_text=few, limits=RequestLimits(text_characters=500)) as home:
        async with home.client.post(f"{home.url}/v1/tts", json=asked) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (status, code)
        assert home.origin.counters.requests == 0


async def test_what_is_too_long_in_one_piece_is_told_what_it_may_be_in_sentences() -> None:
    whole = {"text": "x" * 600, "chunking": "none"}
    async with (
        house(limits=RequestLimits(text_characters=500)) as home,
        home.client.post(f"{home.url}/v1/tts", json=whole) as answer,
    ):
        message = (await answer.json())["error"]["message"]
    assert message == "text has 600 characters; this edge takes 500, or 100000 without `chunking: none`."


async def test_a_get_and_an_old_client() -> None:
    async with house() as home:
        async with home.client.get(f"{home.url}/v1/tts", params={"text": TEXT, **BY_SENTENCE}) as answer:
            whole = await answer.read()
        assert whole[WAV_HEADER_BYTES:] == b"".join([await alone(home, each) for each in SENTENCES])
        reader, writer = await asyncio.open_connection("127.0.0.1", home.node.port)
        writer.write(b"GET /v1/tts?text=One.+Two.&chunking=sentence HTTP/1.0\r\n\r\n")
        assert b"200 OK" in await reader.read()
        writer.close()


async def test_only_if_cached_is_all_or_nothing() -> None:
    async with house() as home:
        await home.say(SENTENCES[0])
        want = {"Cache-Control": "only-if-cached"}
        heard = await post(home, headers=want, text=TEXT, **BY_SENTENCE)
        assert (heard.status, home.origin.counters.syntheses) == (504, 1)
        await post(home, text=TEXT, **BY_SENTENCE)
        assert (await post(home, headers=want, text=TEXT, **BY_SENTENCE)).status == 200


async def test_the_next_two_are_fetched_while_the_first_is_spoken() -> None:
    patient = Timeouts(between_bytes_s=30.0)
    async with house(knobs={"stall_after_bytes": 4000}, timeouts=patient) as home:
        hearing = asyncio.create_task(post(home, text=TEXT, **BY_SENTENCE))
        await home.origin.until(lambda counters: counters.in_flight == 3)
        assert home.node.fills.sealed == 0
        while not hearing.done():
            home.origin.release()
            await asyncio.sleep(0.01)
        assert (await hearing).whole


async def test_rule_3_a_cluster_that_breaks_in_mid_sentence_breaks_the_answer_off() -> None:
    patient = Timeouts(between_bytes_s=30.0)
    async with house(knobs={"stall_after_bytes": 6000}, timeouts=patient) as home:
        asked = {"text": TEXT, "chunking": "sentence"}
        async with home.client.post(f"{home.url}/v1/tts", json=asked) as answer:
            body = await answer.content.readexactly(6000)
            await home.origin.close()
            with pytest.raises(aiohttp.ClientError):
                await answer.content.read()
        assert (answer.status, len(body)) == (200, 6000)


async def test_the_next_sentence_comes_from_another_cluster() -> None:
    """The near cluster says the first sentence and is gone in the midst of the others; nothing is missing."""
    patient = Timeouts(first_byte_s=30.0, between_bytes_s=30.0)
    async with house(knobs={"first_byte_ms": 5}) as other:
        whole = (await post(other, text=TEXT, **BY_SENTENCE)).body
    async with cluster() as near, cluster() as far, aiohttp.ClientSession() as client:
        async with running(settings(near.url, far.url, timeouts=patient)) as node:
            home = House(near, node, client)
            await home.say(SENTENCES[0])
            speaking = near if near.counters.syntheses else far
            speaking.knobs = replace(speaking.knobs, stall_after_bytes=20)
            async with client.post(f"{home.url}/v1/tts", json={"text": TEXT, **BY_SENTENCE}) as answer:
                body = await answer.content.readexactly(100)
                await speaking.until(lambda counters: counters.in_flight > 0)
                await speaking.close()
                body += await answer.content.read()
        assert body == whole
        assert (near.counters.syntheses, far.counters.syntheses) != (4, 0)


players = [
    pytest.param(
        program,
        marks=pytest.mark.skipif(
            shutil.which(program) is None, reason=f"{program} is not installed; `make test` installs it as root"
        ),
    )
    for program in ("sox", "ffmpeg")
]


def sox_knows(form: str) -> bool:
    told = subprocess.run(["sox", "--help"], capture_output=True, text=True, timeout=30, check=False).stdout
    return form in told.partition("AUDIO FILE FORMATS:")[2].partition("\n")[0].split()


def decode(program: str, path: Path, raw: tuple[str, str] | None = None) -> tuple[bytes, str]:
    """All its samples, and every word that the player had to say. raw: what sox and ffmpeg call samples without a head."""
    # What does not say how long it is, is read from a pipe: of a file, ffmpeg says that it estimates its duration.
    source = "-" if path.suffix == ".mp3" or raw else str(path)
    command = {
        "sox": [
            *("sox", *(("-t", raw[0], "-r", "8000", "-c", "1") if raw else ()), str(path)),
            *("-t", "raw", "-e", "signed", "-b", "16", "-r", "8000", "-c", "1", "-"),
        ],
        "ffmpeg": [
            *("ffmpeg", "-v", "warning", "-guess_layout_max", "0"),
            *(("-f", raw[1], "-ar", "8000", "-ac", "1") if raw else ()),
            *("-i", source, "-f", "s16le", "-ar", "8000", "-ac", "1", "-"),
        ],
    }[program]
    ran = subprocess.run(command, input=path.read_bytes(), capture_output=True, timeout=30, check=False)
    return ran.stdout, ran.stderr.decode()


@pytest.mark.parametrize("program", players)
@pytest.mark.parametrize("form", ["wav", "mp3", "opus", "flac"])
async def test_players_decode_every_recording_in_full_without_a_word(program: str, form: str, tmp_path: Path) -> None:
    if form != "wav" and shutil.which("ffmpeg") is None:
        pytest.skip("the demo cluster needs ffmpeg for this format")
    if program == "sox" and not sox_knows(form):
        pytest.skip(f"this sox knows no {form}")
    async with house() as home:
        await post(home, text=SENTENCES[0], format=form)
        hit = await post(home, text=SENTENCES[0], format=form)
        assert "; hit;" in hit.headers["Cache-Status"]
        path = tmp_path / f"hit.{form}"
        path.write_bytes(hit.body)
        facts = verdict(hit.headers["Content-Type"], [hit.body])
        assert isinstance(facts, Measured)
        assert facts.duration_ms
    samples, said = await asyncio.to_thread(decode, program, path)
    assert said == ""
    assert abs(len(samples) / 16 - facts.duration_ms) < 60


TELEPHONY = [
    pytest.param("audio/basic", SOUND, ("ul", "mulaw"), id="mu-law"),
    pytest.param("audio/PCMU;rate=8000", SOUND, ("ul", "mulaw"), id="PCMU"),
    pytest.param("audio/PCMA", SOUND, ("al", "alaw"), id="PCMA"),
    pytest.param(
        "audio/wav", riff(fmt(tag=7, bits=8), chunk(b"data", SOUND, UNKNOWN), size=UNKNOWN), None, id="mu-law in WAV"
    ),
    pytest.param(
        "audio/wav", riff(fmt(tag=6, bits=8), chunk(b"data", SOUND, UNKNOWN), size=UNKNOWN), None, id="A-law in WAV"
    ),
]


@pytest.mark.parametrize("program", players)
@pytest.mark.parametrize(("media_type", "body", "raw"), TELEPHONY)
async def test_players_decode_telephony_in_full_without_a_word(
    program: str, media_type: str, body: bytes, raw: tuple[str, str] | None, tmp_path: Path
) -> None:
    async with (
        ScriptedUpstream([whole(body, media_type)]) as cluster,
        running(settings(cluster.url)) as node,
        Client([f"http://127.0.0.1:{node.port}"]) as client,
    ):
        for _ in ("miss", "hit"):
            async with client.speak("A telephone") as speech:
                heard = await speech.whole()
        assert speech.hit
    path = tmp_path / "hit.wav"
    path.write_bytes(heard)
    samples, said = await asyncio.to_thread(decode, program, path, raw)
    assert said == ""
    assert len(samples) == 2 * len(SOUND)


@pytest.mark.parametrize("program", players[:1])
async def test_a_long_text_under_way_plays_without_a_word(program: str, tmp_path: Path) -> None:
    """Its head can't say how long it will be; ffmpeg plays all of it too, and says that it estimates."""
    async with house() as home:
        heard = await post(home, text=TEXT, **BY_SENTENCE)
    path = tmp_path / "page.wav"
    path.write_bytes(heard.body)
    samples, said = await asyncio.to_thread(decode, program, path)
    assert said == ""
    assert abs(len(samples) - (len(heard.body) - WAV_HEADER_BYTES) / 3) < 100
