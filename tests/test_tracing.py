"""Traces: passed on to clusters whether spans are told or not, and spans as a real collector on loopback is told them."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from edgecache.demo import tone
from edgecache.errors import SettingsError
from edgecache.node import Node
from edgecache.ops.log import Logging
from edgecache.ops.tracing import Tracing
from tests.configured import CLUSTER, read, refused, told
from tests.daemon import config, daemons, eventually
from tests.houses import UNMEASURED, cluster, house, running, settings
from tests.scripted_upstream import HOLD, ScriptedUpstream, head, whole
from tests.sockets import hear, say, with_aiohttp

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"
OFF = "off"


@dataclass
class Collector:
    """Takes spans as OTLP over HTTP says."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    resources: list[dict[str, str]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        asked = ExportTraceServiceRequest()
        asked.ParseFromString(await request.read())
        for each in asked.resource_spans:
            self.resources.append({told.key: told.value.string_value for told in each.resource.attributes})
            for scope in each.scope_spans:
                self.spans.extend(scope.spans)
        return web.Response(body=b"", content_type="application/x-protobuf")

    def of(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield collector
    finally:
        await runner.cleanup()


def traced(collector: Collector, ratio: float = 1.0) -> Tracing:
    return Tracing("otlp", collector.url, ratio)


def attributes(span: Span) -> dict[str, Any]:
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in span.attributes}


# Passed on.

PASSED: dict[str, tuple[list[tuple[str, str]], dict[str, str]]] = {
    "as it came": ([("traceparent", PARENT), ("tracestate", "a=1")], {"traceparent": PARENT, "tracestate": "a=1"}),
    "state in two lines": (
        [("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2")],
        {"traceparent": PARENT, "tracestate": "a=1,b=2"},
    ),
    "malformed": ([("traceparent", PARENT + "0"), ("tracestate", "a=1")], {}),
    "two": ([("traceparent", PARENT), ("traceparent", PARENT)], {}),
    "state alone": ([("tracestate", "a=1")], {}),
}


@pytest.mark.parametrize(("sent", "passed"), PASSED.values(), ids=PASSED)
async def test_without_spans_the_cluster_is_told_the_trace_that_the_client_told(
    sent: list[tuple[str, str]], passed: dict[str, str]
) -> None:
    async with (
        ScriptedUpstream([whole(tone.audio({"text": "Hello"}))]) as peer,
        running(settings(peer.url)) as node,
        aiohttp.ClientSession() as client,
        client.post(f"http://127.0.0.1:{node.port}/v1/tts", json={"text": "Hello"}, headers=sent) as answer,
    ):
        assert answer.status == 200
        (got,) = peer.requests
    assert {name: text for name, text in got.headers.items() if name.startswith("trace")} == passed


async def test_rule_1_a_trace_is_no_part_of_the_key() -> None:
    async with house() as here:
        first = await here.say("Hello", headers={"traceparent": PARENT})
        again = await here.say("Hello", headers={"traceparent": PARENT.replace("b7", "c8")})
    assert ("fwd=uri-miss" in first.cache, "hit" in again.cache) == (True, True)


async def test_a_session_passes_on_the_trace_of_its_handshake() -> None:
    async with (
        ScriptedUpstream([whole(tone.audio({"text": "Hello"}))]) as peer,
        running(settings(peer.url)) as node,
        with_aiohttp(node.port, {"traceparent": PARENT}, ()) as client,
    ):
        await say(client, text="Hello")
        await hear(client)
        assert peer.requests[0].headers["traceparent"] == PARENT


# Spans.


async def test_a_miss_is_two_spans_and_the_cluster_is_told_the_second() -> None:
    async with collecting() as collector:
        async with (
            ScriptedUpstream([whole(tone.audio({"text": "A secret"}))]) as peer,
            running(settings(peer.url, tracing=traced(collector))) as node,
            aiohttp.ClientSession() as client,
        ):
            url, sent = f"http://127.0.0.1:{node.port}/v1/tts", {"traceparent": PARENT, "tracestate": "a=1"}
            async with client.post(url, json={"text": "A secret"}, headers=sent) as answer:
                assert answer.status == 200
                await answer.read()
            (got,) = peer.requests
        (server,), (asking,) = collector.of("POST /v1/tts"), collector.of("ask c0")

    assert (server.trace_id.hex(), server.parent_span_id.hex(), server.trace_state) == (TRACE_ID, SPAN_ID, "a=1")
    assert (asking.trace_id.hex(), asking.parent_span_id) == (TRACE_ID, server.span_id)
    assert got.headers["traceparent"] == f"00-{TRACE_ID}-{asking.span_id.hex()}-01"
    assert got.headers["tracestate"] == "a=1"
    assert (server.kind, asking.kind) == (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT)
    assert server.start_time_unix_nano <= asking.start_time_unix_nano < asking.end_time_unix_nano
    told = attributes(server)
    assert (told["http.route"], told["http.response.status_code"], told["edgecache.cache"]) == ("/v1/tts", 200, "miss")
    assert attributes(asking)["edgecache.upstream"] == "c0"
    assert attributes(asking)["edgecache.first_audio_ms"] > 0
    assert collector.resources[0]["service.name"] == "edgecache"
    assert collector.resources[0]["service.instance.id"] == "test-edge"
    assert not any("secret" in str(attributes(each)) for each in collector.spans), "rule 8"


@pytest.mark.parametrize("spelled", ["traceparent", "Traceparent"])
@pytest.mark.parametrize("access", [True, False])
async def test_hits_of_both_lanes_are_spans_too(spelled: str, access: bool) -> None:
    async with collecting() as collector:
        async with house(tracing=traced(collector), log=Logging(access=access)) as here:
            for n in range(6):
                await here.say("Hello", headers={spelled: PARENT.replace("b7ad", f"{n + 1:04x}")})
            lane = here.node.status()["fast_lane"]
            assert isinstance(lane, dict)
            assert lane["answered"] >= 3
        spans = collector.of("POST /v1/tts")

    assert [attributes(each)["edgecache.cache"] for each in spans] == ["miss"] + ["hit_memory"] * 5
    assert [each.parent_span_id.hex()[:4] for each in spans] == [f"{n + 1:04x}" for n in range(6)]


@pytest.mark.parametrize(
    ("ratio", "parent", "spans"),
    [(1.0, None, 2), (0.0, None, 0), (0.0, PARENT, 2), (1.0, PARENT[:-2] + "00", 0)],
    ids=["all", "none", "the client wants it", "the client does not"],
)
async def test_what_is_told_is_the_clients_choice_and_else_a_share(
    ratio: float, parent: str | None, spans: int
) -> None:
    async with collecting() as collector:
        async with house(tracing=traced(collector, ratio)) as here:
            await here.say("Hello", headers={} if parent is None else {"traceparent": parent})
        assert len(collector.spans) == spans
        if spans and parent is None:
            assert {each.trace_id for each in collector.spans} == {collector.spans[0].trace_id}


async def test_each_attempt_is_a_span_and_says_how_it_failed() -> None:
    async with collecting() as collector:
        async with (
            ScriptedUpstream([head("500 No", "Content-Length: 0")], probe_script=[HOLD]) as broken,
            ScriptedUpstream([whole(tone.audio({"text": "Hello"}))], probe_script=[HOLD]) as well,
            running(settings(broken.url, well.url, tracing=traced(collector), probing=UNMEASURED)) as node,
            aiohttp.ClientSession() as client,
        ):
            async with client.post(f"http://127.0.0.1:{node.port}/v1/tts", json={"text": "Hello"}) as answer:
                assert answer.status == 200
                await answer.read()
            assert len(broken.requests) == 1
        failed, heard = collector.of("ask c0"), collector.of("ask c1")

    assert [attributes(each).get("error.type") for each in (*failed, *heard)] == ["failed", None]


async def test_a_sessions_texts_are_spans_within_it() -> None:
    async with collecting() as collector:
        async with house(tracing=traced(collector)) as here:
            async with with_aiohttp(here.node.port, {"traceparent": PARENT}, ()) as client:
                await say(client, text="Hello")
                await hear(client)
            await eventually(lambda: {row["method"] for row in here.node.tally.told()} == {"GET", "WS"})
        (session,), (turn,), (asking,) = (
            collector.of(name) for name in ("GET /ws/tts/stream", "WS /ws/tts/stream", "ask c0")
        )

    assert (session.parent_span_id.hex(), turn.parent_span_id) == (SPAN_ID, session.span_id)
    assert asking.parent_span_id == turn.span_id


async def test_a_collector_that_is_not_there_costs_nothing_but_the_spans() -> None:
    async with house(tracing=Tracing("otlp", "http://127.0.0.1:1", 1.0)) as here:
        assert [(await here.say("Hello")).status for _ in range(3)] == [200] * 3


def test_without_opentelemetry_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(SettingsError, match=r"pip install 'edgecache\[otel\]'"):
        Node(settings("http://127.0.0.1:1", tracing=Tracing("console")))


@pytest.mark.parametrize(
    ("exporter", "halted"),
    [("console", "opentelemetry.sdk.trace"), ("otlp", "opentelemetry.exporter.otlp.proto.http")],
)
def test_a_check_says_so_before_it_is_started(
    exporter: str, halted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = CLUSTER + f"tracing: {{exporter: {exporter}}}"
    assert read(tmp_path, given).settings.tracing.exporter == exporter
    monkeypatch.setitem(sys.modules, halted, None)
    ((line, column, wrong),) = told(refused(tmp_path, given))
    assert (line, column) == (2, 21)
    assert "OpenTelemetry is not installed / pip install 'edgecache[otel]'" in wrong


#: redis-py imports OpenTelemetry's metrics by itself where they are installed; spans are ours alone.
WATCH = """
import atexit, sys
atexit.register(lambda: print("loaded:", "opentelemetry.sdk.trace" in sys.modules, flush=True))
"""


@pytest.mark.parametrize("exporter", [OFF, "console"])
async def test_off_nothing_of_opentelemetry_is_even_imported(exporter: str) -> None:
    async with cluster() as origin, daemons() as start, aiohttp.ClientSession() as client:
        tracing = {"exporter": exporter, "sample_ratio": 1}
        daemon = await start.serve(config(origin.url, tracing=tracing), sabotage=WATCH)
        for _ in range(3):
            async with client.post(
                f"{daemon.url}/v1/tts", json={"text": "Hello"}, headers={"traceparent": PARENT}
            ) as got:
                assert got.status == 200
        assert await daemon.stopped() == 0

    assert ("loaded: False" in daemon.output) is (exporter == OFF)
    assert ('"name": "ask c0"' in daemon.output) is (exporter != OFF)
    assert json.dumps(TRACE_ID)[1:-1] in daemon.output or exporter == OFF
