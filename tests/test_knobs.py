"""The demo cluster misbehaves as it is told, over real sockets, and in no other way."""

import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import aiohttp
import pytest

from edgecache.demo import espeak, tone
from edgecache.demo.knobs import Knobs
from edgecache.demo.origin import Origin
from edgecache.speech.utterance import Value

pytestmark = pytest.mark.net

Fields = dict[str, Value]
TONE = Knobs(voice="tone")

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


async def hear(answer: aiohttp.ClientResponse) -> tuple[bytes, bool]:
    """What can be heard, and whether it ended as HTTP says it must."""
    got = b""
    try:
        while piece := await answer.content.readany():
            got += piece
    except aiohttp.ClientError:
        return got, False
    return got, True


@pytest.mark.parametrize(
    ("demo", "status", "headers", "body"),
    [
        pytest.param({"status": 500}, 500, {"Content-Type": "application/json"}, b'{"error"', id="500"),
        pytest.param({"status": 429, "retry_after_s": 7}, 429, {"Retry-After": "7"}, b'{"error"', id="429"),
        pytest.param({"error_rate": 1}, 500, {"Content-Type": "application/json"}, b'{"error"', id="error rate"),
        pytest.param(
            {"json_error": True}, 200, {"Content-Type": "application/json"}, b'{"error"', id="JSON as success"
        ),
        pytest.param({"lie": True}, 200, {"Content-Type": "audio/mpeg"}, b'{"error"', id="JSON as MP3"),
        pytest.param({"empty": True}, 200, {"Content-Length": "44"}, b"RIFF\x24\0\0\0WAVE", id="no audio"),
    ],
)
async def test_knobs_that_spoil_the_answer(
    origin: Origin, client: aiohttp.ClientSession, demo: Fields, status: int, headers: dict[str, str], body: bytes
) -> None:
    async with ask(client, origin, demo=demo) as answer:
        got = await answer.read()

    assert answer.status == status
    assert {name: answer.headers.get(name) for name in headers} == headers
    assert got.startswith(body)
    counted = await stats(client, origin)
    assert (counted["requests"], counted["syntheses"]) == (1, 0)


async def test_empty_raw_audio_is_no_byte_at_all(origin: Origin, client: aiohttp.ClientSession) -> None:
    async with ask(client, origin, format="pcm", demo={"empty": True}) as answer:
        assert (answer.status, await answer.read()) == (200, b"")


@pytest.mark.parametrize("seed", [1, 2])
async def test_errors_are_dealt_by_seed(client: aiohttp.ClientSession, seed: int) -> None:
    dealt = []
    for _ in range(2):
        cluster = Origin(Knobs(voice="tone", error_rate=0.5, seed=seed))
        await cluster.start()
        statuses = []
        for _ in range(20):
            async with ask(client, cluster) as answer:
                statuses.append(answer.status)
        await cluster.close()
        dealt.append(statuses)

    assert dealt[0] == dealt[1]
    assert set(dealt[0]) == {200, 500}


@pytest.mark.parametrize("stop", [0, 1, 44, 4096, 5000, 14_443])
@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "reset"])
async def test_a_cut_sends_so_much_and_no_end(
    origin: Origin, client: aiohttp.ClientSession, stop: int, reset: bool
) -> None:
    demo: Fields = {"cut_after_bytes": stop, "reset": reset}
    async with ask(client, origin, text="hello", demo=demo) as answer:
        got, whole = await hear(answer)

    assert answer.status == 200
    assert not whole
    assert len(got) == stop
    assert tone.owner_mismatch(got, {"text": "hello", "demo": demo}, whole=False) is None
    assert (await stats(client, origin))["aborted"] == 0, "it was not the client who left"


async def test_an_unframed_body_ends_with_the_connection(origin: Origin, client: aiohttp.ClientSession) -> None:
    async with ask(client, origin, demo={"unframed": True}) as answer:
        body = await answer.read()

    assert "Content-Length" not in answer.headers
    assert "Transfer-Encoding" not in answer.headers
    assert answer.headers["Connection"] == "close"
    assert tone.owner_mismatch(body, {"text": "Hello.", "demo": {"unframed": True}}) is None


async def test_a_cut_unframed_body_looks_whole(origin: Origin, client: aiohttp.ClientSession) -> None:
    """The trap that it is there for: HTTP itself can't tell."""
    async with ask(client, origin, demo={"unframed": True, "cut_after_bytes": 3000}) as answer:
        assert len(await answer.read()) == 3000


@pytest.mark.parametrize("stop", [0, 1, 5000])
async def test_a_stall_lasts_until_it_is_released(origin: Origin, client: aiohttp.ClientSession, stop: int) -> None:
    demo: Fields = {"stall_after_bytes": stop}
    async with ask(client, origin, text="hello", demo=demo) as answer:
        body = await answer.content.readexactly(stop)
        assert (await stats(client, origin))["in_flight"] == 1
        origin.release()
        body += await answer.content.read()

    assert tone.owner_mismatch(body, {"text": "hello", "demo": demo}) is None


async def test_above_max_concurrent_it_says_429(client: aiohttp.ClientSession) -> None:
    cluster = Origin(Knobs(voice="tone", max_concurrent=1))
    await cluster.start()
    async with ask(client, cluster, demo={"stall_after_bytes": 10}) as busy:
        await busy.content.readexactly(10)
        async with ask(client, cluster) as refused:
            assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
        cluster.release()
        await busy.read()
    async with ask(client, cluster) as answer:
        assert answer.status == 200
    await cluster.close()


@pytest.mark.parametrize("voice", ["tone", pytest.param("en", marks=needs_espeak)])
async def test_two_takes_differ(origin: Origin, client: aiohttp.ClientSession, voice: str) -> None:
    fields: Fields = {"text": "Hello.", "voice_id": voice, "demo": {"take": True}}
    bodies = []
    for _ in range(2):
        async with ask(client, origin, **fields) as answer:
            bodies.append(await answer.read())

    assert bodies[0] != bodies[1]
    assert tone.take_in(bodies[0]) != tone.take_in(bodies[1])
    if voice == "tone":
        assert [tone.owner_mismatch(body, fields, takes=True) for body in bodies] == [None, None]


async def test_it_thinks_before_it_answers(origin: Origin, client: aiohttp.ClientSession) -> None:
    started_s = time.monotonic()
    async with ask(client, origin, demo={"first_byte_ms": 80}) as answer:
        await answer.content.readany()

    assert time.monotonic() - started_s >= 0.08
