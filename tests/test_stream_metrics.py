"""Every stream is heard by imagined players, and every synthesis that was not made is counted, however speech is told."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from edgecache.clusters.cluster import Cluster
from edgecache.fill.limits import FillLimits
from edgecache.ops import watching
from tests.daemon import eventually
from tests.houses import House, cluster, house, settings
from tests.scrapes import Scrape, scrape
from tests.sockets import hear, say, with_aiohttp

TEXT = "It was a bright cold day in April, and the clocks were striking thirteen."
SENTENCES = ["The first of three sentences is here.", "The second one follows it.", "And the third is the last one."]
LONG = " ".join(SENTENCES)
Tell = Callable[[House, dict[str, Any]], Awaitable[None]]


@pytest.fixture(autouse=True)
def always_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "FRESH_S", 0.0)


def over_http(path: str, accept: str = "*/*", **more: Any) -> Tell:
    async def tell(here: House, asked: dict[str, Any]) -> None:
        async with here.client.post(here.url + path, json={**asked, **more}, headers={"Accept": accept}) as answer:
            assert answer.status == 200
            assert await answer.read()

    return tell


async def over_websocket(here: House, asked: dict[str, Any]) -> None:
    async with with_aiohttp(here.node.port, {}, ()) as client:
        await say(client, **asked)
        assert (await hear(client)).end["type"] == "synthesis_complete"


async def bit_by_bit(here: House, asked: dict[str, Any]) -> None:
    async with with_aiohttp(here.node.port, {}, ()) as client:
        words = asked["text"].split(" ")
        rest = {name: value for name, value in asked.items() if name != "text"}
        for at, word in enumerate(words):
            await say(client, type="text", id=1, text=word + " " * (at + 1 < len(words)), **rest)
        await say(client, type="flush", id=1)
        assert (await hear(client)).end["type"] == "synthesis_complete"


WHOLE: dict[str, tuple[Tell, str]] = {
    "raw": (over_http("/v1/tts"), "/v1/tts"),
    "raw stream": (over_http("/v1/tts/stream"), "/v1/tts/stream"),
    "server-sent events": (over_http("/v1/tts/stream", "text/event-stream"), "/v1/tts/stream"),
    "protobuf": (over_http("/v1/tts/stream", "application/x-protobuf"), "/v1/tts/stream"),
    "websocket": (over_websocket, "/ws/tts/stream"),
}
BY_SENTENCE: dict[str, tuple[Tell, str]] = {
    "raw": (over_http("/v1/tts", chunking="sentence"), "/v1/tts"),
    "events": (over_http("/v1/tts/stream", "text/event-stream", chunking="sentence"), "/v1/tts/stream"),
    "protobuf": (over_http("/v1/tts/stream", "application/x-protobuf", chunking="sentence"), "/v1/tts/stream"),
    "websocket": (bit_by_bit, "/ws/tts/stream"),
}


async def counted(here: House, route: str, many: int) -> Scrape:
    """A scrape, once so many exchanges of the route are over: the client may know before."""

    def ended() -> int:
        kinds = [each for each in here.node.tally if each.kind.route == route and each.kind.method != "GET"]
        return sum(each.exchanges for each in kinds)

    await eventually(lambda: ended() == many)
    return await scrape(here.node.admin_port)


@pytest.mark.parametrize(("tell", "route"), WHOLE.values(), ids=WHOLE)
async def test_a_cluster_that_speaks_too_slowly_has_the_blame_however_it_is_told(tell: Tell, route: str) -> None:
    async with house() as here:
        await tell(here, {"text": TEXT, "demo": {"rtf": 2.0, "bytes": 48_000}})
        seen = await counted(here, route, 1)

    assert seen.value("edgecache_streams_total", cluster="c0", cache="miss") == 1
    assert seen.value("edgecache_stream_underruns_total", cluster="c0", cache="miss", cause="cluster") == 1
    assert seen.value("edgecache_stream_silence_seconds_total", cause="cluster") > 0.2
    assert seen.value("edgecache_cluster_first_audio_seconds_count", cluster="c0") == 1
    assert seen.value("edgecache_slo_good_total", slo="underruns", subject="cluster:c0") == 0
    assert seen.value("edgecache_slo_events_total", slo="underruns", subject="miss") == 1


@pytest.mark.parametrize(("tell", "route"), WHOLE.values(), ids=WHOLE)
async def test_a_cluster_that_is_quick_enough_has_none(tell: Tell, route: str) -> None:
    async with house() as here:
        await tell(here, {"text": TEXT, "demo": {"rtf": 0.2, "bytes": 48_000}})
        seen = await counted(here, route, 1)

    assert seen.value("edgecache_streams_total", cluster="c0", cache="miss") == 1
    assert seen.value("edgecache_stream_underruns_total", cause="cluster") == 0


@pytest.mark.parametrize(("tell", "route"), WHOLE.values(), ids=WHOLE)
async def test_a_hit_saves_a_synthesis_however_it_is_told(tell: Tell, route: str) -> None:
    async with house() as here:
        for _ in range(3):
            await tell(here, {"text": TEXT})
        seen = await counted(here, route, 3)
        (recording,) = (each.recording for each in here.node._memory._places.values())

    assert recording.facts.duration_ms is not None
    assert seen.value("edgecache_saved_syntheses_total", cache="hit_memory") == 2
    assert seen.value("edgecache_saved_characters_total") == 2 * len(TEXT)
    assert seen.value("edgecache_saved_speech_seconds_total") == pytest.approx(2 * recording.facts.duration_ms / 1000)


@pytest.mark.parametrize(("tell", "route"), WHOLE.values(), ids=WHOLE)
async def test_who_joins_saves_one_too(tell: Tell, route: str) -> None:
    async with house() as here:
        asked = {"text": TEXT, "demo": {"first_byte_ms": 400}}
        await asyncio.gather(*(tell(here, asked) for _ in range(4)))
        seen = await counted(here, route, 4)

    assert seen.value("edgecache_saved_syntheses_total", cache="collapsed") == 3
    assert seen.value("edgecache_saved_speech_seconds_total", cache="collapsed") > 0


@pytest.mark.parametrize(("tell", "route"), BY_SENTENCE.values(), ids=BY_SENTENCE)
async def test_a_long_text_is_one_stream_and_each_of_its_sentences_that_is_there_is_saved(
    tell: Tell, route: str
) -> None:
    async with house() as here:
        await tell(here, {"text": SENTENCES[1]})
        first = await counted(here, route, 1)
        await tell(here, {"text": LONG})
        mixed = await counted(here, route, 2)
        await tell(here, {"text": LONG})
        whole = await counted(here, route, 3)

    saved, characters = "edgecache_saved_syntheses_total", "edgecache_saved_characters_total"
    assert [seen.value(saved) for seen in (first, mixed, whole)] == [0, 1, 4]
    assert mixed.value(characters) == len(SENTENCES[1])
    assert whole.value(characters) == len(SENTENCES[1]) + sum(map(len, SENTENCES))
    assert mixed.value("edgecache_http_requests_total", route=route, cache="miss") == 2, "as well as the worst of them"
    assert whole.value("edgecache_http_requests_total", route=route, cache="hit_memory") == 1
    assert mixed.value("edgecache_streams_total", cluster="c0") == 2
    assert mixed.value("edgecache_cluster_first_audio_seconds_count", cluster="c0") == 3


async def test_what_is_under_way_is_told_while_it_is() -> None:
    slow = {"rtf": 1.0, "bytes": 96_000}
    async with house() as here:
        async with (
            here.client.post(here.url + "/v1/tts", json={"text": "a", "demo": slow}) as raw,
            here.client.post(
                here.url + "/v1/tts/stream", json={"text": "b", "demo": slow}, headers={"Accept": "text/event-stream"}
            ) as events,
            with_aiohttp(here.node.port, {}, ()) as client,
        ):
            await say(client, text="c", demo=slow)
            await raw.content.readany()
            await events.content.readany()
            seen = await scrape(here.node.admin_port)
        await eventually(lambda: not (here.node.tally.under_way.total() or here.node.tally.streaming.total()))
        over = await scrape(here.node.admin_port)

    in_flight, streams = "edgecache_http_requests_in_flight", "edgecache_stream_connections"
    assert {route: seen.value(in_flight, route=route) for route in ("/v1/tts", "/v1/tts/stream", "/ws/tts/stream")} == {
        "/v1/tts": 1,
        "/v1/tts/stream": 1,
        "/ws/tts/stream": 1,
    }
    told = {way: seen.value(streams, transport=way) for way in ("http", "sse", "protobuf", "ws")}
    assert told == {"http": 1, "sse": 1, "protobuf": 0, "ws": 1}
    assert (over.value(in_flight), over.value(streams)) == (0, 0)


async def test_who_waits_for_room_is_counted_and_for_how_long() -> None:
    async with cluster() as origin:
        one = (Cluster(name="c0", url=origin.url, max_in_flight=1),)
        fills = FillLimits(max_waiting=1, wait_s=30.0)
        async with house(clusters=one, fills=fills) as here:
            asking = [asyncio.create_task(here.say(f"n{n}", demo={"first_byte_ms": 1000})) for n in range(3)]
            await eventually(lambda: here.node.fills.admission.sent_away == 1)
            seen = await scrape(here.node.admin_port)
            heard = await asyncio.gather(*asking)
            over = await scrape(here.node.admin_port)

    assert sorted(each.status for each in heard) == [200, 200, 503]
    assert seen.value("edgecache_fills_waiting", priority="interactive") == 1
    assert over.value("edgecache_fills_waiting") == 0
    assert over.value("edgecache_fills_queued_total", priority="interactive") == 1
    assert over.value("edgecache_fills_unplaced_total", reason="sent_away") == 1
    assert over.value("edgecache_cluster_queue_wait_seconds_count", cluster="c0") == 1
    assert over.value("edgecache_cluster_queue_wait_seconds_sum", cluster="c0") > 0.1


async def test_retries_and_hedges_are_counted_by_what_came_of_them() -> None:
    fills = FillLimits(hedge_s=0.05, hedge_share=1.0)
    async with cluster() as one, cluster() as other:
        of = settings(one.url, other.url).clusters
        async with house(clusters=of, fills=fills) as here:
            for n in range(3):
                # Whoever is asked first is late.
                assert (await here.say(f"n{n}", demo={"first_byte_ms": 300})).status == 200
            await here.say("no", demo={"status": 500})
            seen = await scrape(here.node.admin_port)
            wins = here.node.fills.asking.hedge_wins

    assert seen.value("edgecache_fill_hedges_total", result="made") == 3
    assert seen.value("edgecache_fill_hedges_total", result="won") == wins
    assert seen.value("edgecache_fill_retries_total", result="made") == 1
