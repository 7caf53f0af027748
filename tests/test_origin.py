"""The demo cluster over real sockets: it streams what is asked for, and nothing is left when a client leaves."""

import asyncio
import importlib.util
import io
import json
import os
import re
import signal
import sys
import wave
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp
import pytest

from edgecache.demo import encoder, espeak, tone
from edgecache.demo.knobs import Knobs
from edgecache.demo.origin import Origin
from edgecache.errors import SettingsError
from edgecache.speech.utterance import Value

pytestmark = pytest.mark.net

Fields = dict[str, Value]
TONE = Knobs(voice="tone")
LONG = "A long story, told slowly. " * 20

needs_ffmpeg = pytest.mark.skipif(encoder.installed() is None, reason="ffmpeg is not installed")
needs_espeak = pytest.mark.skipif(espeak.program() is None, reason="espeak-ng is not installed")


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    """A cluster with the tone voice and no knob turned."""
    cluster = Origin(TONE)
    await cluster.start()
    yield cluster
    await cluster.close()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


async def stats(client: aiohttp.ClientSession, origin: Origin) -> dict[str, int]:
    async with client.get(f"{origin.url}/stats") as answer:
        counted: dict[str, int] = await answer.json()
        return counted


def ask(
    client: aiohttp.ClientSession, origin: Origin, **fields: Value
) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
    return client.post(f"{origin.url}/v1/tts", json={"text": "Hello.", **fields})


# What it says


@pytest.mark.parametrize(
    ("fields", "media_type"),
    [
        pytest.param({}, "audio/wav", id="all defaults"),
        pytest.param({"format": "pcm"}, "audio/pcm;rate=24000", id="raw"),
        pytest.param({"format": "PCM", "sample_rate": 8000}, "audio/pcm;rate=8000", id="raw at 8 kHz, in capitals"),
        pytest.param({"text": LONG, "speaking_rate": 1.5, "voice_id": "tone"}, "audio/wav", id="long and fast"),
        pytest.param({"language": "ja", "style": {"mood": ["calm", 1.0]}}, "audio/wav", id="unknown fields"),
        pytest.param({"demo": {"bytes": 32768}}, "audio/wav", id="of a chosen size"),
        pytest.param({"demo": {"bytes": 0, "chunk_bytes": 7}}, "audio/wav", id="in tiny chunks"),
        pytest.param({"demo": {"at_once": True, "chunk_bytes": 64}}, "audio/wav", id="when all is made"),
    ],
)
async def test_tone_voice_says_what_is_asked(
    origin: Origin, client: aiohttp.ClientSession, fields: Fields, media_type: str
) -> None:
    async with ask(client, origin, **fields) as answer:
        body = await answer.read()

    assert answer.status == 200
    assert answer.headers["Content-Type"] == media_type
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert tone.owner_mismatch(body, {"text": "Hello.", **fields}) is None


async def test_chunks_have_the_size_asked_for(origin: Origin, client: aiohttp.ClientSession) -> None:
    async with ask(client, origin, format="pcm", text=LONG) as answer:
        sizes: list[int] = []
        part = 0
        async for piece, is_end_of_chunk in answer.content.iter_chunks():
            part += len(piece)
            if is_end_of_chunk:
                sizes.append(part)
                part = 0

    assert set(sizes[:-1]) == {4096}


@needs_espeak
@pytest.mark.parametrize(
    ("fields", "rate_hz"),
    [
        pytest.param({}, 22_050, id="English, its own rate"),
        pytest.param(
            {"language": "de-DE", "text": "Guten Tag.", "sample_rate": 24_000}, 24_000, id="German, resampled"
        ),
        pytest.param({"language": "zh", "text": "你好"}, 22_050, id="zh is cmn"),
        pytest.param({"language": "ja", "text": "こんにちは"}, 22_050, id="Japanese"),
        pytest.param({"voice_id": "en+f3", "text": "-v --help"}, 22_050, id="a variant, and a text like an option"),
    ],
)
async def test_espeak_speaks(client: aiohttp.ClientSession, fields: Fields, rate_hz: int) -> None:
    cluster = Origin(Knobs(voice="espeak-ng"))
    await cluster.start()
    try:
        async with ask(client, cluster, **fields) as answer:
            body = await answer.read()
    finally:
        await cluster.close()

    assert answer.status == 200
    assert body[:4] == b"RIFF"
    assert body[40:44] == b"\xff\xff\xff\xff", "a streamed header does not know its length"
    with wave.open(io.BytesIO(body)) as read:
        assert read.getframerate() == rate_hz
    samples = memoryview(body[44 : len(body) & ~1]).cast("h")
    assert len(samples) > rate_hz / 5
    assert max(samples) > 1000


@needs_espeak
async def test_espeak_speaks_faster_when_asked(client: aiohttp.ClientSession) -> None:
    cluster = Origin(Knobs(voice="espeak-ng"))
    await cluster.start()
    lengths = []
    for rate in (1.0, 2.0):
        async with ask(client, cluster, text=LONG, speaking_rate=rate) as answer:
            lengths.append(len(await answer.read()))
    await cluster.close()

    assert lengths[1] < lengths[0] * 0.7


@needs_ffmpeg
@pytest.mark.parametrize(
    ("form", "media_type", "magic"),
    [("mp3", "audio/mpeg", b"\xff"), ("opus", "audio/ogg", b"OggS"), ("flac", "audio/flac", b"fLaC")],
)
async def test_encoded_formats(
    origin: Origin, client: aiohttp.ClientSession, form: str, media_type: str, magic: bytes
) -> None:
    bodies = []
    for _ in range(2):
        async with ask(client, origin, format=form, text=LONG) as answer:
            bodies.append(await answer.read())

    assert answer.headers["Content-Type"] == media_type
    assert bodies[0].startswith(magic)
    assert len(bodies[0]) > 5000
    assert bodies[0] == bodies[1]


async def test_a_format_that_needs_ffmpeg_says_so(
    origin: Origin, client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "installed", lambda: None)

    async with ask(client, origin, format="opus") as answer:
        told = await answer.json()

    assert (answer.status, told["error"]["code"]) == (422, "format_not_supported")
    assert "ffmpeg" in told["error"]["message"]


# What it refuses


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        pytest.param(b"{", 400, "bad_json", id="not JSON"),
        pytest.param(b"[1]", 400, "bad_json", id="not an object"),
        pytest.param(b"[" * 100_000, 400, "bad_json", id="deep JSON"),
        pytest.param(b'{"text": "\\ud800"}', 400, "bad_unicode", id="half a surrogate"),
        pytest.param(b'{"text": "a", "x": NaN}', 400, "bad_number", id="NaN"),
        pytest.param(b"{}", 422, "text_missing", id="no text"),
        pytest.param(b'{"text": " "}', 422, "text_missing", id="blank text"),
        pytest.param(b'{"text": 5}', 422, "text_missing", id="a number for a text"),
        pytest.param(json.dumps({"text": "a" * 10_001}).encode(), 422, "text_too_long", id="too long"),
        pytest.param(b'{"text": "a", "format": "midi"}', 422, "format_not_supported", id="unknown format"),
        pytest.param(b'{"text": "a", "voice_id": "nobody-here"}', 422, "voice_not_found", id="unknown voice"),
        pytest.param(b'{"text": "a", "voice_id": "-w/tmp/x"}', 422, "voice_not_found", id="a voice like an option"),
        pytest.param(b'{"text": "a", "voice_id": "../../x"}', 422, "voice_not_found", id="a voice like a path"),
        pytest.param(b'{"text": "a", "sample_rate": 1}', 422, "bad_sample_rate", id="sample rate"),
        pytest.param(b'{"text": "a", "sample_rate": 22050.5}', 422, "bad_sample_rate", id="half a sample"),
        pytest.param(b'{"text": "a", "speaking_rate": true}', 422, "bad_speaking_rate", id="speaking rate"),
        pytest.param(b'{"text": "a", "demo": []}', 422, "bad_knob", id="knobs that are none"),
        pytest.param(b'{"text": "a", "demo": {"rft": 1}}', 422, "bad_knob", id="unknown knob"),
        pytest.param(b'{"text": "a", "demo": {"status": "500"}}', 422, "bad_knob", id="a knob's type"),
        pytest.param(b'{"text": "a", "demo": {"error_rate": 2}}', 422, "bad_knob", id="a knob's bounds"),
        pytest.param(b'{"text": "a", "demo": {"distance_ms": 2}}', 422, "bad_knob", id="a knob of the process"),
    ],
)
async def test_refusals(origin: Origin, client: aiohttp.ClientSession, body: bytes, status: int, code: str) -> None:
    async with client.post(f"{origin.url}/v1/tts", data=body) as answer:
        told = await answer.json()

    assert (answer.status, told["error"]["code"]) == (status, code)
    assert told["error"]["message"]
    assert (await stats(client, origin))["in_flight"] == 0


@pytest.mark.parametrize(("given", "status"), [(None, 401), ("wrong", 401), ("ключ", 401), ("right", 200)])
async def test_api_key(client: aiohttp.ClientSession, given: str | None, status: int) -> None:
    cluster = Origin(TONE, api_key="right")
    await cluster.start()
    headers = {"X-API-Key": given} if given else {}
    async with client.post(f"{cluster.url}/v1/tts", json={"text": "a"}, headers=headers) as answer:
        await answer.read()
    async with client.get(f"{cluster.url}/healthz") as health:
        told = await health.json()
    await cluster.close()

    assert answer.status == status
    assert (health.status, told) == (200, {"status": "ok"}), "health needs no key"


# It streams, and whoever leaves leaves nothing behind


@pytest.mark.parametrize("voice", ["tone", pytest.param("en", marks=needs_espeak)])
@pytest.mark.parametrize("form", ["wav", pytest.param("mp3", marks=needs_ffmpeg)])
async def test_it_streams_while_it_speaks(origin: Origin, client: aiohttp.ClientSession, voice: str, form: str) -> None:
    """At `rtf` 1 the text would take half a minute; what is heard at once was not waited for until the end."""
    async with ask(client, origin, text=LONG, voice_id=voice, format=form, demo={"rtf": 1}) as answer:
        first = await answer.content.readany()
        assert first
        assert (await stats(client, origin))["in_flight"] == 1
        answer.close()
        await origin.until(lambda counters: counters.in_flight == 0)

    assert await stats(client, origin) == {"requests": 1, "syntheses": 1, "in_flight": 0, "aborted": 1}
    assert children() == []


def children() -> list[str]:
    """The processes that this one has started and not collected."""
    found = Path(f"/proc/self/task/{os.getpid()}/children")
    return found.read_text().split() if found.exists() else []


@pytest.mark.parametrize("demo", [{"first_byte_ms": 60_000}, {"stall_after_bytes": 0}, {"stall_after_bytes": 3}])
async def test_a_client_that_leaves_is_noticed_at_once(
    origin: Origin, client: aiohttp.ClientSession, demo: Fields
) -> None:
    asking = asyncio.create_task(client.post(f"{origin.url}/v1/tts", json={"text": "a", "demo": demo}))
    await origin.until(lambda counters: counters.in_flight == 1)
    asking.cancel()
    await asyncio.wait([asking])
    if not asking.cancelled():
        asking.result().close()
    await origin.until(lambda counters: counters.aborted == 1)

    assert origin.counters.in_flight == 0


@pytest.mark.parametrize("distance_ms", [0, 5])
async def test_closing_hangs_up_and_never_fakes_an_end(client: aiohttp.ClientSession, distance_ms: float) -> None:
    cluster = Origin(Knobs(voice="tone", distance_ms=distance_ms))
    await cluster.start()
    async with ask(client, cluster, text=LONG, demo={"stall_after_bytes": 5000}) as answer:
        await answer.content.readexactly(5000)
        await cluster.close()
        with pytest.raises(aiohttp.ClientError):
            await answer.read()

    assert cluster.counters.in_flight == 0


async def test_voices_are_listed(origin: Origin, client: aiohttp.ClientSession) -> None:
    async with client.get(f"{origin.url}/voices") as answer:
        told = await answer.json()

    assert told["default"] == "tone"
    assert {"voice_id": "tone"} in told["voices"]


async def test_a_voice_that_can_not_be_is_the_operators_fault() -> None:
    with pytest.raises(SettingsError, match="tone"):
        await Origin(Knobs(voice="festival")).start()


async def test_a_taken_port_is_told(origin: Origin) -> None:
    with pytest.raises(OSError, match="in use"):
        await Origin(TONE, port=origin.port).start()


# The library in a child of ours


def library() -> Path | None:
    """libespeak-ng as the system has it; the wheel brings the same."""
    return next(iter(sorted(Path("/usr/lib").glob("*/libespeak-ng.so.1"))), None)


@pytest.fixture
def child_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sequence[str]:
    """Our child, with a stand-in for the wheel that leads to the system's library unless the wheel is there."""
    if importlib.util.find_spec("espeakng_loader") is None:
        found = library()
        if found is None:
            pytest.skip("no libespeak-ng on this machine")
        (tmp_path / "espeakng_loader.py").write_text(
            f"def get_library_path(): return {str(found)!r}\n"
            f"def get_data_path(): return {str(found.parent / 'espeak-ng-data')!r}\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return (sys.executable, "-m", "edgecache.demo.espeak_child")


async def test_the_child_with_the_library_speaks_too(
    origin: Origin, client: aiohttp.ClientSession, child_command: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(espeak, "program", lambda: child_command)

    async with ask(client, origin, text=LONG, voice_id="en", format="pcm") as answer:
        body = await answer.read()
    async with ask(client, origin, voice_id="nobody-here") as refused:
        told = await refused.json()

    assert len(body) > 22_050 * 2 * 10
    assert max(memoryview(body[: len(body) & ~1]).cast("h")) > 1000
    assert (refused.status, told["error"]["code"]) == (422, "voice_not_found")


# As a process


async def test_it_runs_until_it_is_told_to_stop(client: aiohttp.ClientSession) -> None:
    program = (
        "import asyncio; from edgecache.demo.origin import *;"
        "asyncio.run(run('syd', Origin(Knobs(voice='tone', distance_ms=2))))"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    told = re.fullmatch(
        r"demo cluster syd listening on (http://127\.0\.0\.1:\d+) \(voice: tone, distance 2 ms\)\n", line
    )
    assert told
    async with client.post(f"{told[1]}/v1/tts", json={"text": "a"}) as answer:
        body = await answer.read()
    process.send_signal(signal.SIGTERM)
    await process.communicate()

    assert tone.owner_mismatch(body, {"text": "a"}) is None
    assert process.returncode == 0
