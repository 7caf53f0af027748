"""Real scrapes of a real edge, by Prometheus's own parser: counts against what was done, labels, who is kept waiting."""

import asyncio
import threading
import time
from dataclasses import replace

import aiohttp
import pytest

from edgecache.clock import SystemClock
from edgecache.ops import metrics, watching
from edgecache.ops.daemon import Alone, Told
from edgecache.ops.families import FAMILIES
from edgecache.ops.objectives import Promises
from tests.houses import House, house
from tests.scrapes import OPENMETRICS, scrape, told

#: Everything is told at once, however lately it was asked.
pytestmark = pytest.mark.usefixtures("always_anew")


@pytest.fixture
def always_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "FRESH_S", 0.0)


async def test_counts_are_what_was_done() -> None:
    async with house() as here:
        first = await here.say("Good morning")
        again = [await here.say("Good morning") for _ in range(3)]
        await here.say("")
        seen = await scrape(here.node.admin_port)

    assert [each.status for each in again] == [200] * 3
    requests = "edgecache_http_requests_total"
    assert seen.value(requests, cache="miss", code="200", method="POST", route="/v1/tts") == 1
    assert seen.value(requests, cache="hit_memory", code="200") == 3
    assert seen.value(requests, cache="error", code="400") == 1
    assert seen.value("edgecache_http_response_bytes_total", cache="hit_memory") == 3 * len(first.body)
    assert seen.value("edgecache_http_time_to_first_byte_seconds_count", cache="hit_memory") == 3
    assert seen.value("edgecache_http_request_duration_seconds_bucket", cache="miss", le="+Inf") == 1
    assert seen.value("edgecache_cache_requests_total", tier="memory", result="hit") == 3
    assert seen.value("edgecache_cache_entries", tier="memory") == 1
    assert seen.value("edgecache_fills_total", outcome="sealed") == 1
    assert seen.value("edgecache_cluster_first_audio_seconds_count", cluster="c0") == 1
    assert seen.value("edgecache_upstream_state", state="up", upstream="c0") == 1
    assert seen.value("edgecache_streams_total", cache="miss", cluster="c0") == 1
    assert seen.value("edgecache_workers") == 1
    assert seen.value("edgecache_slo_events_total", slo="first_byte", subject="hit") == 3


async def test_what_hits_save_is_counted_in_syntheses_characters_and_speech() -> None:
    text = "Grüße aus Zürich"
    async with house() as here:
        await here.say(text)
        await here.say(text)  # by aiohttp's lane, which teaches the fast one
        for _ in range(3):
            await here.say(text)
        async with here.client.get(f"{here.url}/v1/tts", params={"text": text}, headers={"Range": "bytes=0-9"}) as part:
            assert part.status == 206
        async with here.client.head(f"{here.url}/v1/tts", params={"text": text}) as looked:
            assert looked.status == 200
        seen = await scrape(here.node.admin_port)
        (recording,) = (each.recording for each in here.node._memory._places.values())

    assert recording.facts.duration_ms is not None
    assert seen.value("edgecache_saved_syntheses_total") == 4, "a part and a look save nothing"
    assert seen.value("edgecache_saved_characters_total") == 4 * len(text)
    assert seen.value("edgecache_saved_speech_seconds_total") == pytest.approx(4 * recording.facts.duration_ms / 1000)
    assert seen.value("edgecache_fast_lane_answers_total") >= 3
    assert seen.value("edgecache_http_requests_total", cache="none", method="HEAD", code="200") == 1
    assert seen.value("edgecache_slo_events_total", slo="first_byte", subject="hit") == 5, "a look is no speech"


async def test_who_joins_saves_a_synthesis_too() -> None:
    async with house() as here:
        heard = await asyncio.gather(*(here.say("All together now", demo={"first_byte_ms": 500}) for _ in range(5)))
        seen = await scrape(here.node.admin_port)

    joined = sum("collapsed" in each.cache for each in heard)
    assert joined >= 1
    assert seen.value("edgecache_saved_syntheses_total", cache="collapsed") == joined
    assert seen.value("edgecache_fill_joins_total") == joined
    assert seen.value("edgecache_streams_total", cluster="c0") == joined + 1


async def test_either_form_is_read_by_its_parser_and_says_the_same() -> None:
    async with house() as here:
        await here.say("Hello")
        plain, open_metrics = await scrape(here.node.admin_port), await scrape(here.node.admin_port, OPENMETRICS)

    assert plain.media_type.startswith("text/plain")
    assert open_metrics.media_type.startswith("application/openmetrics-text")
    assert plain.names == open_metrics.names
    assert {family.name for family in open_metrics.families} <= set(FAMILIES)
    hits = ("edgecache_http_requests_total", {"cache": "miss"})
    assert plain.value(hits[0], **hits[1]) == open_metrics.value(hits[0], **hits[1]) == 1


async def hostile(here: House) -> None:
    """What a client can put where labels come from: methods, paths, voices, ids, headers."""
    for n in range(12):
        for path in (f"/v1/tts/{n}", f"/v1/audio/{n:064x}", f"/{n}?text={n}", f"/v1/tts?text=t{n}&voice_id=v{n}"):
            async with here.client.get(here.url + path, headers={"X-Request-Id": f"id-{n}"}) as answer:
                await answer.read()
        async with here.client.request(("PATCH", "DELETE", "PROPFIND")[n % 3], here.url + "/v1/tts") as answer:
            await answer.read()
        body = {
            "text": f"secret {n}",
            "voice_id": f"voice-{n}",
            "language": f"x-{n}",
            "format": f"f{n}",
        }
        async with here.client.post(here.url + "/v1/tts", json=body) as answer:
            await answer.read()


async def test_rule_7_and_8_labels_are_bounded_whatever_a_client_sends() -> None:
    async with house() as here:
        await hostile(here)
        once = await scrape(here.node.admin_port)
        await hostile(here)
        twice = await scrape(here.node.admin_port)

    # The second round hits where the first one missed; after that there is nothing new under the sun.
    assert len(twice.samples) - len(once.samples) < 120
    assert len(twice.samples) < 1200
    assert twice.labels("method") == {"GET", "POST", "other"}
    assert twice.labels("route") == {"/v1/tts", "/v1/audio/{key}", "other"}
    spoken = "\n".join(f"{name}{labels}" for name, labels in twice.samples)
    assert not any(word in spoken for word in ("secret", "voice-", "id-", "x-1"))


async def test_a_scrape_that_takes_its_time_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rendering waits for a request to be answered: on the loop both would wait for ever."""
    answered, rendered, began = threading.Event(), metrics.rendered, threading.Event()

    def slow(*given: object) -> tuple[bytes, str]:
        began.set()
        assert answered.wait(20), "nobody was answered meanwhile"
        return rendered(*given)  # type: ignore[arg-type]

    async with house() as here:
        await here.say("Hello")
        monkeypatch.setattr(metrics, "rendered", slow)
        scraping = asyncio.create_task(scrape(here.node.admin_port))
        await asyncio.to_thread(began.wait, 20)
        assert (await here.say("Hello")).status == 200
        assert not scraping.done()
        answered.set()
        seen = await scraping

    assert seen.value("edgecache_http_requests_total", cache="miss") == 1


async def test_what_is_added_up_gives_way_after_each_slice() -> None:
    """It is done on the loop; in one go whoever is being answered would wait for all of it."""
    turns = 0

    async def measured(_: Told) -> Told:
        nonlocal turns
        turns = 0
        return await here.node.calls["measures"]({})

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with house() as here:
        await here.say("Hello")
        seen = watching.Watching(Promises(), SystemClock())
        answering = asyncio.create_task(others())
        await seen.hear(Alone({"measures": measured}))
        answering.cancel()
    assert turns > len(seen._rows) > 5


async def test_fault_102_a_loop_that_stood_still_is_seen_and_turns_readiness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecache.node.STOOD_STILL_S", 1.0)
    async with house() as here:
        await here.say("Hello")
        await asyncio.sleep(0)
        time.sleep(1.3)  # noqa: ASYNC251 - that is the fault
        async with aiohttp.ClientSession() as client, client.get(f"{here.url}/readyz") as answer:
            checks = (await answer.json())["checks"]
            assert (answer.status, "stood still" in checks["loop"]) == (503, True)
        seen = await scrape(here.node.admin_port)
        bucket = "edgecache_event_loop_lag_seconds_bucket"
        assert seen.value(bucket, le="+Inf") - seen.value(bucket, le="1.0") >= 1
        here.node.lag.beat(0.0, 0.0)
        assert here.node.lag.recent_s(here.node.clock.monotonic() + 6) == 0


async def test_fault_104_what_nobody_foresaw_is_a_500_with_an_id_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    foreseen: list[str] = []

    def broken(*_: object, **__: object) -> object:
        raise ZeroDivisionError("a bug")

    async with house() as here:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: foreseen.append(context["message"]))
        await here.say("Hello")
        tasks = asyncio.all_tasks()
        with monkeypatch.context() as patched:
            patched.setattr(here.node.fills, "lead", broken)
            failed = await here.say("Another", headers={"X-Request-Id": "mine"})
        again = await here.say("Hello")
        errors = await told(here.node.admin_port, "/errors")
        seen = await scrape(here.node.admin_port)
        left = {task.get_name() for task in asyncio.all_tasks() - tasks if "RequestHandler" not in repr(task)}

    assert (failed.status, failed.code, failed.headers["X-Request-Id"]) == (500, "internal_error", "mine")
    assert b"mine" in failed.body
    assert b"a bug" not in failed.body
    assert again.status == 200, "the next one is told what it asked for"
    assert foreseen == ["an exchange failed"]
    assert (errors["errors"][0]["code"], errors["errors"][0]["request_id"]) == ("internal_error", "mine")
    assert seen.value("edgecache_http_requests_total", code="500") == 1
    assert not left


async def test_errors_are_told_with_reasons_and_no_text() -> None:
    async with house() as here:
        await here.say("a secret that is not told", demo={"status": 500})
        await here.say("")
        seen = await told(here.node.admin_port, "/errors")

    assert [each["code"] for each in seen["errors"]][:1] == ["empty_text"]
    assert len(seen["errors"]) == 2
    assert "secret" not in str(seen)
    assert seen["errors"][0]["status"] == 400


async def test_the_promises_are_told_as_json_and_follow_what_is_measured() -> None:
    strict = Promises(least_events=5)
    slow = replace(strict, first_byte=replace(strict.first_byte, target_s=0.000001, warning_s=0.000002, critical_s=9.0))
    async with house(slo=slow) as here:
        for _ in range(8):
            await here.say("Hello")
        seen = await told(here.node.admin_port, "/slo")
        states = {(row["slo"], row["subject"]): row for row in seen["objectives"]}
        scraped = await scrape(here.node.admin_port)

    hit = states["first_byte", "hit"]
    assert (hit["state"], hit["unit"], hit["windows"]["5m"]["events"], hit["windows"]["5m"]["good"]) == (
        "warning",
        "ms",
        7,
        0,
    )
    assert hit["windows"]["3d"]["burn_rate"] == pytest.approx(20.0)
    assert states["startup", "client"]["windows"]["5m"]["events"] >= 1
    assert set(seen["windows_s"]) == {"5m", "1h", "6h", "3d"}
    assert scraped.value("edgecache_slo_state", slo="first_byte", subject="hit", state="warning") == 1
    assert scraped.value("edgecache_slo_good_total", slo="first_byte", subject="hit") == 0


async def test_a_cluster_that_speaks_slower_than_it_is_heard_has_the_blame() -> None:
    async with house() as here:
        heard = await here.say("More to come", demo={"rtf": 2.0})
        seen = await scrape(here.node.admin_port)

    assert heard.whole
    assert seen.value("edgecache_stream_underruns_total", cluster="c0", cause="cluster") == 1
    assert seen.value("edgecache_stream_silence_seconds_total", cause="cluster") > 0.1
    assert seen.value("edgecache_slo_good_total", slo="underruns", subject="cluster:c0") == 0
    assert seen.value("edgecache_slo_good_total", slo="underruns", subject="client") == 1
