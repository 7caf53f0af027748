"""The main job: heard once, spoken ever after; through real sockets, with a cluster whose every byte has an owner."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edgecache.clusters.cluster import Timeouts
from edgecache.delivery.auth import Auth, new_key
from edgecache.delivery.limits import RequestLimits
from edgecache.demo import tone
from edgecache.fill.limits import FillLimits
from edgecache.settings import Cache, NodeName
from edgecache.store.tiers import MemoryLimits, RedisAccess
from tests.houses import Heard, House, house, keys_file, running, settings
from tests.scripted_upstream import ScriptedUpstream, whole

pytestmark = pytest.mark.net


async def test_the_first_request_speaks_and_the_second_is_a_hit() -> None:
    async with house() as home:
        miss = await home.say("Hello from the edge")
        assert (miss.status, miss.whole) == (200, True)
        assert miss.cache == "test-edge; fwd=uri-miss; stored; ttl=86400; detail=c0"
        assert "Content-Length" not in miss.headers
        assert "Age" not in miss.headers
        hit = await home.say("Hello from the edge")
        assert re.fullmatch(r"test-edge; hit; ttl=863\d\d; detail=memory", hit.cache)
        assert hit.body == miss.body
        assert hit.headers["Content-Length"] == str(len(hit.body))
        assert hit.headers["Age"] == "0"
        assert re.fullmatch(r'"[0-9a-f]{32}"', hit.headers["ETag"])
        assert hit.headers["Content-Location"] == miss.headers["Content-Location"]
        assert "cache;desc=memory" in hit.headers["Server-Timing"]
        assert hit.headers["Server"] == "edgecache"
        assert home.origin.counters.syntheses == 1


async def test_every_delivery_gives_the_same_recording() -> None:
    async with house() as home:
        made = await home.say("One recording", style="calm")
        path = made.headers["Content-Location"]
        for method, where in [
            ("GET", "/v1/tts?text=One+recording&style=calm"),
            ("GET", path),
            ("HEAD", path),
            ("HEAD", "/v1/tts?style=calm&text=One%20recording"),
        ]:
            async with home.client.request(method, home.url + where) as answer:
                assert answer.status == 200
                assert "; hit;" in answer.headers["Cache-Status"]
                assert answer.headers["Content-Length"] == str(len(made.body))
                assert answer.headers["Accept-Ranges"] == "bytes"
                assert await answer.read() == (made.body if method == "GET" else b"")
        asked: dict[str, Any] = {"text": "One recording", "style": "calm"}
        async with home.client.post(f"{home.url}/v1/tts/stream", json=asked, headers={"Accept": "audio/*"}) as answer:
            assert await answer.read() == made.body
        assert home.origin.counters.syntheses == 1


async def test_conditions_and_ranges_on_a_recording() -> None:
    async with house() as home:
        made = await home.say("Part of it")
        url, etag = home.url + made.headers["Content-Location"], (await home.say("Part of it")).headers["ETag"]
        size = len(made.body)
        rows = [
            ({"Range": "bytes=0-1"}, 206, made.body[:2], f"bytes 0-1/{size}"),
            ({"Range": "bytes=-4"}, 206, made.body[-4:], f"bytes {size - 4}-{size - 1}/{size}"),
            ({"Range": f"bytes={size}-"}, 416, None, f"bytes */{size}"),
            ({"If-None-Match": etag}, 304, b"", None),
            ({"Range": "bytes=0-1", "If-Range": '"other"'}, 200, made.body, None),
        ]
        for sent, status, body, content_range in rows:
            async with home.client.get(url, headers=sent) as answer:
                assert answer.status == status, sent
                assert answer.headers.get("Content-Range") == content_range
                read = await answer.read()
                assert body is None or read == body
        async with home.client.post(
            f"{home.url}/v1/tts", json={"text": "Part of it"}, headers={"If-None-Match": etag, "Range": "bytes=0-1"}
        ) as answer:
            assert (answer.status, await answer.read()) == (200, made.body)


async def test_a_head_never_synthesizes() -> None:
    async with house() as home:
        async with home.client.head(f"{home.url}/v1/tts?text=Never+said") as answer:
            assert answer.status == 200
            assert answer.headers["Cache-Status"] == "test-edge; fwd=uri-miss; stored=?0; detail=not-forwarded"
        assert home.origin.counters.requests == 0


async def test_rule_4_two_hundred_at_once_make_one_synthesis_and_all_hear_it_begin() -> None:
    """The cluster goes on only when all two hundred have heard its first bytes."""
    patient = Timeouts(between_bytes_s=30.0)
    async with house(knobs={"stall_after_bytes": 20_000}, timeouts=patient) as home:
        asked: dict[str, Any] = {"text": "Everyone asks for this at the same time", "demo": {"bytes": 60_000}}
        begun = asyncio.Semaphore(0)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as crowd:

            async def listen() -> Heard:
                async with crowd.post(f"{home.url}/v1/tts", json=asked) as answer:
                    first = await answer.content.readany()
                    begun.release()
                    rest = await answer.content.read()
                    heard = Heard(answer.status, answer.headers, first + rest, whole=True, asked=asked)
                    heard.check_owner()
                    return heard

            crowd_listens = [asyncio.create_task(listen()) for _ in range(200)]
            for _ in crowd_listens:
                await begun.acquire()
            assert home.origin.counters.in_flight == 1
            home.origin.release()
            answers = await asyncio.gather(*crowd_listens)
        assert home.origin.counters.syntheses == 1
        assert sum("collapsed" in heard.cache for heard in answers) == 199


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99], ids=["0 %", "1 %", "50 %", "99 %"])
async def test_rule_4_a_leader_that_leaves_changes_nothing_for_others(share: float) -> None:
    async with house(knobs={"rtf": 0.2, "first_byte_ms": 30}) as home:
        asked: dict[str, Any] = {"text": "The leader leaves", "demo": {"bytes": 48_000}}
        leader = asyncio.create_task(_hear_and_leave(home, asked, int(48_000 * share)))
        while home.origin.counters.requests == 0:
            await asyncio.sleep(0.005)
        follower = await home.say(**asked)
        await leader
        assert follower.whole
        assert home.origin.counters.syntheses == 1
        assert "; hit;" in (await home.say(**asked)).cache


async def _hear_and_leave(home: House, asked: dict[str, Any], size: int) -> None:
    async with aiohttp.ClientSession() as session, session.post(f"{home.url}/v1/tts", json=asked) as answer:
        if size:
            await answer.content.readexactly(size)
        answer.close()


async def test_rule_4_all_leave_and_the_fill_is_finished_and_stored() -> None:
    async with house(knobs={"rtf": 0.1, "first_byte_ms": 30}) as home:
        asked: dict[str, Any] = {"text": "Nobody stays", "demo": {"bytes": 24_000}}
        await _hear_and_leave(home, asked, 100)
        await home.node.fills.drain()
        heard = await home.say(**asked)
        assert "; hit;" in heard.cache
        assert home.node.fills.held_bytes == 0


async def test_rule_4_a_reader_that_does_not_read_hurts_nobody() -> None:
    size = 3 << 20
    limits = RequestLimits(write_stall_s=1.0)
    async with house(limits=limits) as home:
        asked: dict[str, Any] = {"text": "A slow reader, and much to read", "demo": {"bytes": size}}
        reader, writer = await asyncio.open_connection("127.0.0.1", home.node.port, limit=1024)
        body = b'{"text":"A slow reader, and much to read","demo":{"bytes":%d}}' % size
        writer.write(b"POST /v1/tts HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        others = await asyncio.gather(*(home.say(**asked) for _ in range(3)))
        assert all(other.whole and len(other.body) == size for other in others)
        assert home.origin.counters.syntheses == 1
        while home.node.fills.held_bytes:
            await asyncio.sleep(0.01)
        writer.close()


async def test_what_requests_say_of_caching() -> None:
    async with house() as home:
        take = {"take": True}

        async def say(directive: str) -> Heard:
            headers = {"Cache-Control": directive} if directive else None
            return await home.say("Once more", headers=headers, demo=take)

        absent = await say("only-if-cached")
        assert (absent.status, absent.code) == (504, "not_cached")
        first = await say("")
        unseen = await say("no-store")
        assert "fwd=bypass" in unseen.cache
        assert "stored" not in unseen.cache
        assert unseen.body != first.body
        assert (await say("only-if-cached")).body == first.body
        anew = await say("no-cache")
        assert "fwd=request; stored" in anew.cache
        assert anew.body != first.body
        assert (await say("")).body == anew.body
        assert home.origin.counters.syntheses == 3


async def test_stale_speech_is_better_than_none_when_every_cluster_is_down() -> None:
    cache = Cache(ttl_s=0.05, stale_if_error_s=3600, redis=RedisAccess(url="off"))
    async with house(cache=cache) as home:
        first = await home.say("Still here")
        await asyncio.sleep(0.06)
        again = await home.say("Still here")
        assert "fwd=stale" in again.cache
        await asyncio.sleep(0.06)
        await home.origin.close()
        stale = await home.say("Still here")
        assert (stale.status, stale.body) == (200, first.body)
        assert re.match(r"test-edge; fwd=stale; fwd-status=503; ttl=(-\d+|0); detail=stale-if-error", stale.cache)
        none = await home.say("Never heard before")
        assert (none.status, none.code) == (503, "no_cluster")
        assert int(none.headers["Retry-After"]) >= 1


async def test_a_cluster_that_fails_before_its_first_audio_is_replaced() -> None:
    async with house() as near, house() as far:
        await near.origin.close()
        async with running(settings(near.origin.url, far.origin.url)) as node:
            home = House(far.origin, node, far.client)
            heard = await home.say("Somebody else will do it")
            assert (heard.status, heard.whole) == (200, True)
            assert "detail=c1" in heard.cache


async def test_rule_8_each_api_key_has_its_own_recordings_unless_told_to_share(tmp_path: Path) -> None:
    made = {
        name: new_key(name, share) for name, share in [("ann", None), ("bob", None), ("cy", "team"), ("di", "team")]
    }
    auth = Auth(keys_file=str(keys_file(tmp_path, "# who may ask", *(line for _, line in made.values()))))
    async with house(auth=auth) as home:

        async def say(name: str) -> Heard:
            return await home.say("Whose is it", headers={"X-API-Key": made[name][0]})

        assert "; hit;" not in (await say("ann")).cache
        anns = await say("ann")
        assert "; hit;" in anns.cache
        assert "; hit;" not in (await say("bob")).cache
        assert "; hit;" not in (await say("cy")).cache
        assert "; hit;" in (await say("di")).cache
        for name, status in [("ann", 200), ("bob", 404), ("di", 404)]:
            headers = {"Authorization": f"Bearer {made[name][0]}"}
            async with home.client.get(home.url + anns.headers["Content-Location"], headers=headers) as answer:
                assert answer.status == status
        refused = await home.say("x", headers={"X-API-Key": "ec_wrong"})
        assert (refused.status, refused.code) == (401, "invalid_api_key")
        nobody = await home.say("x")
        assert (nobody.status, nobody.code) == (401, "missing_api_key")
        assert nobody.headers["WWW-Authenticate"].startswith("Bearer")


LIMITS = RequestLimits(body_bytes=2000, text_characters=50)
REFUSED = [
    ("text too long", b'{"text":"' + b"x" * 51 + b'"}', {}, 413, "text_too_long"),
    ("body too large", b'{"text":"' + b"x" * 3000 + b'"}', {}, 413, "body_too_large"),
    ("not JSON", b"text=Hello", {}, 400, "bad_json"),
    ("compressed", b"\x1f\x8b", {"Content-Encoding": "gzip"}, 415, "content_encoding"),
    ("looped", b'{"text":"x"}', {"CDN-Loop": "a.example, edgecache-test-edge; hop=1"}, 508, "loop"),
    ("odd loop", b'{"text":"x"}', {"CDN-Loop": "<a>"}, 400, "bad_request"),
]


@pytest.mark.parametrize(("body", "headers", "status", "code"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
async def test_rule_7_a_request_past_a_bound_is_refused_clearly(
    body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    async with house(limits=LIMITS) as home:
        async with home.client.post(f"{home.url}/v1/tts", data=body, headers=headers) as answer:
            heard = await Heard.of(answer, {})
            assert (heard.status, heard.code) == (status, code)
            assert heard.headers["Content-Type"] == "application/problem+json"
        assert home.origin.counters.requests == 0
        assert (await home.say("still well")).status == 200


async def test_rule_7_flights_and_bytes_held_have_bounds() -> None:
    async with house(knobs={"stall_after_bytes": 2000}, fills=FillLimits(max_flights=1)) as home:
        leader = asyncio.create_task(home.say("one"))
        while not home.node.fills.under_way:
            await asyncio.sleep(0.005)
        refused = await home.say("two")
        assert (refused.status, refused.code, refused.headers["Retry-After"]) == (503, "busy", "1")
        home.origin.release()
        assert (await leader).whole


async def test_rule_7_a_rendering_has_a_largest_size() -> None:
    async with house(knobs={"stall_after_bytes": 6000}, fills=FillLimits(max_rendering_bytes=10_000)) as home:
        asked = {"text": "too long", "demo": {"bytes": 50_000, "rtf": 0.05}}
        async with home.client.post(f"{home.url}/v1/tts", json=asked) as answer:
            assert answer.status == 200
            heard = len(await answer.content.readexactly(6000))
            home.origin.release()
            with pytest.raises(aiohttp.ClientPayloadError):  # noqa: PT012 - it may be told of at any read
                while chunk := await answer.content.readany():
                    heard += len(chunk)
        assert heard <= 10_000
        assert len(home.node._memory) == 0


async def test_rule_1_a_cluster_is_told_of_the_utterance_and_nothing_else_of_the_client() -> None:
    async with (
        ScriptedUpstream([whole(tone.audio({"text": "Who asks"}))]) as peer,
        running(settings(peer.url)) as node,
        aiohttp.ClientSession() as client,
    ):
        private = {"Cookie": "a=b", "X-Secret": "s", "User-Agent": "me", "Accept-Language": "fr", "Referer": "http://r"}
        sent = {**private, "CDN-Loop": "other.example;x=1", "Via": "1.0 private-proxy", "X-API-Key": "mine"}
        async with client.post(
            f"http://127.0.0.1:{node.port}/v1/tts?x=y", json={"text": "Who asks"}, headers=sent
        ) as answer:
            assert answer.status == 200
        (got,) = peer.requests
        assert json.loads(got.body) == {"text": "Who asks", "voice_id": "default", "language": "en", "speaking_rate": 1}
        assert got.target == "/v1/tts"
        assert got.headers["cdn-loop"] == "other.example, edgecache-test-edge"
        assert got.headers["via"] == "1.1 test-edge (edgecache)"
        assert got.headers["accept-encoding"] == "identity"
        assert set(got.headers) == {
            *("host", "content-type", "content-length", "accept", "accept-encoding", "user-agent", "via", "cdn-loop")
        }
        assert got.headers["user-agent"].startswith("edgecache/")


async def test_health_is_told_on_the_data_listener() -> None:
    async with house() as home:
        for path, status in [("/livez", 200), ("/healthz", 200), ("/startupz", 200), ("/readyz", 200)]:
            async with home.client.get(home.url + path) as answer:
                assert answer.status == status, path
        home.node.readiness.draining = True
        async with home.client.get(home.url + "/readyz") as answer:
            assert answer.status == 503
            assert (await answer.json())["checks"]["draining"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/tts/", 404, "not_found"),
        ("POST", "/v1/tts/x.css", 404, "not_found"),
        ("GET", "/v1/audio/" + "0" * 64, 404, "not_recorded"),
        ("GET", "/v1/audio/short", 404, "not_found"),
        ("DELETE", "/v1/tts", 405, "method_not_allowed"),
        ("GET", "/v1/tts/stream", 405, "method_not_allowed"),
        ("GET", "/v1/tts", 400, "missing_text"),
    ],
)
async def test_what_is_not_there_says_so(method: str, path: str, status: int, code: str) -> None:
    async with house() as home, home.client.request(method, home.url + path) as answer:
        heard = await Heard.of(answer, {})
        assert (heard.status, heard.code) == (status, code)
        assert ("Allow" in heard.headers) == (status == 405)


async def test_explain_changes_nothing() -> None:
    async with house(cache=Cache(memory=MemoryLimits(1 << 20), redis=RedisAccess(url="off"))) as home:
        url = f"http://127.0.0.1:{home.node.admin_port}/explain"
        async with home.client.post(url, json={"text": "Why"}) as answer:
            told = await answer.json()
        assert (told["verdict"], told["tier"], told["utterance"]["text"]) == ("miss", None, "Why")
        assert home.origin.counters.requests == 0
        made = await home.say("Why")
        async with home.client.post(url, json={"text": "Why"}) as answer:
            told = await answer.json()
        assert (told["verdict"], told["tier"]) == ("hit", "memory")
        assert made.headers["Content-Location"].endswith(told["key"])
        assert 86_000 < told["ttl_s"] <= 86_400


@pytest.mark.parametrize(
    ("name", "spelled"), [("edge-1", "edge-1"), ("10.0.0.1", '"10.0.0.1"')], ids=["a token", "a string"]
)
async def test_cache_status_is_a_structured_field_whatever_the_node_is_called(name: str, spelled: str) -> None:
    async with house(node=NodeName(name=name)) as home:
        assert (await home.say("Who am I")).cache.startswith(f"{spelled}; fwd=")
        assert (await home.say("Who am I")).cache.startswith(f"{spelled}; hit;")


async def test_a_head_keeps_to_what_a_request_says_of_caching() -> None:
    async with house() as home:
        await home.say("Said once")
        for said, directive, status, hit in [
            ("Said+once", "only-if-cached", 200, True),
            ("Said+once", "no-store", 200, False),
            ("Never+said", "only-if-cached", 504, False),
        ]:
            headers = {"Cache-Control": directive}
            async with home.client.head(f"{home.url}/v1/tts?text={said}", headers=headers) as answer:
                assert (answer.status, "; hit;" in answer.headers.get("Cache-Status", "")) == (status, hit)
