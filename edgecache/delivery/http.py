"""HTTP: which call is meant, who may make it, and the answer's head. All speech comes from `Edge.speak`.

Keeps rules 3, 7 and 8: a live answer ends only if its flight did; every bound is checked before work is done; nothing that
is said leaves in a header, a log or an error. It does not know clusters or tiers.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import assert_never

import msgspec
from aiohttp import web

from edgecache.cache import status as cache_status
from edgecache.cache.key import Key, is_key
from edgecache.cache.lookup import Asked, Directives, Freshness
from edgecache.cache.status import Outcome
from edgecache.cache.tally import Tally
from edgecache.cache.trace import BeginSpan
from edgecache.clock import Clock
from edgecache.delivery.accept import Way, way
from edgecache.delivery.auth import Gate, presented
from edgecache.delivery.exchange import Exchange
from edgecache.delivery.fastlane import Lane
from edgecache.delivery.framed import send_framed
from edgecache.delivery.framing import SOCKET_PATH, check, forwarding, loop_passed, read_body, trace_of
from edgecache.delivery.full import REQUEST_ID, line_of
from edgecache.delivery.head import AUDIO_PATH, TIMINGS, cache_control, duration, forwarded, recorded, result
from edgecache.delivery.limits import RequestLimits
from edgecache.delivery.listening import Audience
from edgecache.delivery.longtext import LongAnswer, by_sentence, may_be_whole
from edgecache.delivery.ranges import Conditions, narrowed
from edgecache.delivery.readiness import Readiness
from edgecache.delivery.relay import relay
from edgecache.delivery.said import Said
from edgecache.delivery.streamhead import StreamHeads
from edgecache.delivery.urgency import urgency
from edgecache.delivery.websocket import Sockets
from edgecache.dialects import protobuf, speeko
from edgecache.errors import ClientError, SpeechError
from edgecache.fill.edge import Edge, Live, Recorded, Speech, Wish
from edgecache.fill.longform import LongText
from edgecache.fill.telling import Telling
from edgecache.speech.utterance import Utterance


@dataclass(frozen=True, slots=True)
class Service:
    """What all exchanges of this node share."""

    node: str
    edge: Edge
    gate: Gate
    limits: RequestLimits
    long_text: LongText
    freshness: Freshness
    readiness: Readiness
    clock: Clock
    tally: Tally
    sockets: Sockets
    #: Is told of every exchange.
    report: Callable[[Outcome], None]
    #: Answers what it can before it comes here; None: it is turned off.
    lane: Lane | None
    #: Heads of what is told as it is made, in the lane for misses.
    heads: StreamHeads
    #: Who is imagined to hear each stream.
    audience: Audience
    #: Begins a span within the client's; None: no spans are told.
    begin_span: BeginSpan | None

    @property
    def longest_text(self) -> int:
        """The longest that is spoken at all, in code points."""
        return max(self.limits.text_characters, self.long_text.max_characters)

    @property
    def cdn_id(self) -> str:
        """This edge's name in `CDN-Loop`."""
        return f"edgecache-{self.node}"


Respond = Callable[[Exchange], Awaitable[web.StreamResponse]]


class Http:
    """Answers requests."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._edge = service.edge
        self._routes: dict[str, dict[str, Respond]] = {
            "/v1/tts": {"POST": self._post, "GET": self._get, "HEAD": self._get},
            "/v1/tts/stream": {"POST": self._post_stream},
            SOCKET_PATH: {"GET": self._open_socket},
            AUDIO_PATH + "{key}": {"GET": self._get_audio, "HEAD": self._get_audio},
            AUDIO_PATH + "{key}" + TIMINGS: {"GET": self._get_timings, "HEAD": self._get_timings},
            **{path: {"GET": tell, "HEAD": tell} for path, tell in self._health().items()},
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """One exchange, from its head to its last byte."""
        connection = line_of(request)
        connection.begin()
        exchange = Exchange(request, self._service.clock, self._service.limits.write_stall_s)
        if self._service.begin_span is not None:
            exchange.trace = self._service.begin_span(trace_of(request))
        request[REQUEST_ID] = exchange.request_id  # for `Full.handle_error`
        whole = kept = False
        try:
            answer = await self._answer(exchange)
            whole, kept = True, bool(answer.keep_alive)
            return answer
        except ConnectionError:
            exchange.error = exchange.error or "client_gone"
            raise
        except Exception:  # answered and logged where aiohttp hands it on; here it gets its access line
            exchange.status, exchange.error = exchange.status or 500, "internal_error"
            raise
        finally:
            connection.end(kept=kept)
            self._service.report(exchange.outcome(whole=whole))

    async def _answer(self, exchange: Exchange) -> web.StreamResponse:
        exchange.closing = self._service.readiness.draining
        try:
            self._check(exchange)
            respond, tally = self._route(exchange), self._service.tally
            with tally.during(tally.under_way, exchange.route):
                return await respond(exchange)
        except SpeechError as error:
            if exchange.status:
                exchange.error = error.code
                raise ConnectionResetError("An answer that has begun can only be broken off.") from error
            return await exchange.send_problem(error)

    def _check(self, exchange: Exchange) -> None:
        try:
            check(exchange.request)
        except ClientError:
            exchange.closing = True  # what follows on this connection may be part of what was unclear
            raise

    def _route(self, exchange: Exchange) -> Respond:
        request = exchange.request
        path = request.raw_path.partition("?")[0]
        if path.startswith(AUDIO_PATH) and is_key(_key_in(path)):
            path = path.replace(_key_in(path), "{key}", 1)
        methods = self._routes.get(path)
        if methods is None:
            raise ClientError(404, "not_found", "There is nothing here. Speech is asked for by POST /v1/tts.")
        exchange.route = path
        respond = methods.get(request.method)
        if respond is None:
            allowed = ", ".join(methods)
            exchange.problem_headers["Allow"] = allowed
            raise ClientError(405, "method_not_allowed", f"Here one may {allowed}.")
        return respond

    # Asking for speech.

    async def _post(self, exchange: Exchange) -> web.StreamResponse:
        self._admit(exchange)
        exchange.body = await read_body(exchange.request, self._service.limits)
        read = protobuf.request if _is_protobuf(exchange.request) else speeko.request
        return await self._deliver(exchange, read(exchange.body, self._service.longest_text))

    async def _post_stream(self, exchange: Exchange) -> web.StreamResponse:
        exchange.way = way(exchange.request.headers.get("Accept", "*/*"))
        if exchange.way is None:
            told = "Here speech is delivered as `audio/*`, `text/event-stream` or `application/x-protobuf`: accept one."
            raise ClientError(406, "not_acceptable", told)
        return await self._post(exchange)

    async def _open_socket(self, exchange: Exchange) -> web.StreamResponse:
        exchange.problem_headers["Sec-WebSocket-Version"] = "13"  # of 426 (RFC 6455 §4.4), where it helps
        no_store = _directives(exchange.request.headers.getall("Cache-Control", ())).no_store
        return await self._service.sockets.respond(exchange, self._forwarding(exchange), no_store=no_store)

    async def _get(self, exchange: Exchange) -> web.StreamResponse:
        self._admit(exchange)
        query = exchange.request.raw_path.partition("?")[2]
        asked = speeko.query_request(query, self._service.longest_text)
        if exchange.request.method == "HEAD":
            return await self._probe(exchange, self._wish(exchange, asked.utterance))
        return await self._deliver(exchange, asked)

    async def _deliver(self, exchange: Exchange, asked: speeko.Request) -> web.StreamResponse:
        """Whole, or sentence by sentence."""
        settings, whole_characters = self._service.long_text, self._service.limits.text_characters
        http_1_1 = exchange.request.version >= (1, 1)
        if not by_sentence(asked, settings, whole_characters, http_1_1=http_1_1):
            return await self._speak(exchange, asked.utterance)
        wish = self._wish(exchange, asked.utterance)
        exchange.listening = self._service.audience.listening()
        try:
            with self._streaming(exchange):
                return await LongAnswer(exchange, self._edge, wish, settings).send(
                    self._service.node, self._service.freshness
                )
        except ClientError as error:
            if exchange.status or not may_be_whole(asked, whole_characters, error):
                raise
            return await self._speak(exchange, asked.utterance)

    async def _get_audio(self, exchange: Exchange) -> web.StreamResponse:
        self._admit(exchange)
        return await self._send_recorded(exchange, await self._recorded(exchange))

    async def _get_timings(self, exchange: Exchange) -> web.StreamResponse:
        self._admit(exchange)
        timings = (await self._recorded(exchange)).recording.facts.timings
        if not timings:
            raise ClientError(404, "no_timings", "The cluster that made this recording told no timings.")
        headers = {"Content-Type": "application/json", "Cache-Control": cache_control(exchange.request.method)}
        return await exchange.send(200, headers, msgspec.json.encode(timings.told()))

    async def _recorded(self, exchange: Exchange) -> Recorded:
        key = Key(_key_in(exchange.request.raw_path.partition("?")[0]))
        found = await self._edge.recorded(key, exchange.caller.namespace)
        if found is None:
            raise ClientError(404, "not_recorded", "There is no such recording here, or not any more.")
        return found

    async def _probe(self, exchange: Exchange, wish: Wish) -> web.StreamResponse:
        found = await self._edge.probe(wish)
        if found is not None:
            return await self._send_recorded(exchange, found)
        return await exchange.send_head({"Cache-Status": cache_status.unasked(self._service.node)})

    async def _speak(self, exchange: Exchange, utterance: Utterance) -> web.StreamResponse:
        wish = self._wish(exchange, utterance)
        speech: Speech = await self._edge.speak(wish)
        exchange.account.add(speech, len(utterance.text))
        exchange.result, exchange.cluster = exchange.account.result, exchange.account.cluster
        if exchange.way is not Way.RAW:
            return await self._send_framed(exchange, speech, utterance)
        match speech:
            case Recorded():
                return await self._send_recorded(exchange, speech)
            case Live():
                return await self._send_live(exchange, speech)
            case _ as never:
                assert_never(never)

    def _admit(self, exchange: Exchange) -> None:
        headers = exchange.request.headers
        exchange.priority = urgency(headers.getall("Priority", ()))
        brought = presented(headers.get("X-API-Key"), headers.get("Authorization"))
        exchange.caller = self._service.gate.ring.admit(brought)

    def _wish(self, exchange: Exchange, utterance: Utterance) -> Wish:
        connection = line_of(exchange.request)
        directives = _directives(exchange.request.headers.getall("Cache-Control", ()))
        forwarding = self._forwarding(exchange)
        whose = exchange.caller.namespace
        return Wish(utterance, whose, directives, forwarding, connection.looked_for, exchange.priority)

    def _forwarding(self, exchange: Exchange) -> dict[str, str]:
        passed = loop_passed(exchange.request.headers.get("CDN-Loop"), self._service.cdn_id)
        return forwarding(self._service.node, passed, exchange.trace or trace_of(exchange.request))

    # Delivering it.

    async def _send_framed(self, exchange: Exchange, speech: Speech, utterance: Utterance) -> web.StreamResponse:
        telling = Telling(speech, utterance)
        if isinstance(speech, Recorded):
            headers = recorded(self._service.node, speech, "POST", duration(exchange.elapsed_ms()))
            del headers["ETag"], headers["Content-Location"]  # they are of the audio, and this is something else
        else:
            took = duration(exchange.elapsed_ms())
            headers = forwarded(self._service.node, speech, "POST", took, self._service.freshness.ttl_s)
            headers.pop("Content-Location", None)
            exchange.listening = self._service.audience.listening()
        with self._streaming(exchange):
            return await send_framed(exchange, headers, telling)

    def _streaming(self, exchange: Exchange) -> AbstractContextManager[None]:
        """Counts a stream while it is told."""
        tally = self._service.tally
        return tally.during(tally.streaming, "none" if exchange.way is None else exchange.way.value)

    async def _send_recorded(self, exchange: Exchange, found: Recorded) -> web.StreamResponse:
        recording, request = found.recording, exchange.request
        if request.method != "HEAD":  # a look is no speech: it is in no ratio and no promise
            exchange.result = result(found)
        exchange.cluster = recording.facts.cluster
        headers = recorded(self._service.node, found, request.method, duration(exchange.elapsed_ms()))
        if found.forward_status is None:
            self._teach(exchange, found)
        if request.method == "POST":
            return await exchange.send(200, headers, recording.audio)
        asked = request.headers
        wanted = asked.get("Range") if request.method == "GET" else None
        conditions = Conditions(asked.get("If-None-Match"), wanted, asked.get("If-Range"))
        try:
            reply = narrowed(recording.audio, recording.facts.etag, conditions)
        except ClientError:
            exchange.problem_headers["Content-Range"] = f"bytes */{len(recording.audio)}"
            raise
        return await exchange.send(reply.status, headers | reply.headers, reply.body)

    def _teach(self, exchange: Exchange, hit: Recorded) -> None:
        """The fast lane learns what was asked for here, and answers it from now on."""
        lane, request, recording = self._service.lane, exchange.request, hit.recording
        if lane is not None and request.method != "HEAD" and not _is_protobuf(request):
            asked = Asked(recording.key, recording.namespace, recording.canonical)
            said = Said(asked, exchange.route, request.method, exchange.account.worth)
            lane.learn(said, request.raw_path.encode(), exchange.body)

    async def _send_live(self, exchange: Exchange, live: Live) -> web.StreamResponse:
        took = duration(exchange.elapsed_ms())
        headers = forwarded(self._service.node, live, exchange.request.method, took, self._service.freshness.ttl_s)
        if exchange.request.version < (1, 1):
            # HTTP/1.0 can't tell a broken end from an end: all of it, or an error.
            with live.flight.reading():
                return await exchange.send(200, headers, await live.flight.whole())
        exchange.listening = self._service.audience.listening()
        with live.flight.reading(), self._streaming(exchange):
            async with exchange.stream(headers) as stream:
                await relay(live.flight, stream)
        return stream.answer

    # Health.

    def _health(self) -> dict[str, Respond]:
        readiness = self._service.readiness

        async def live(exchange: Exchange) -> web.StreamResponse:
            return await _told(exchange, {})

        async def ready(exchange: Exchange) -> web.StreamResponse:
            return await _told(exchange, readiness.told(), mode=readiness.mode)

        async def started(exchange: Exchange) -> web.StreamResponse:
            return await _told(exchange, {"started": "" if readiness.started else "still starting"})

        return {"/livez": live, "/healthz": live, "/readyz": ready, "/startupz": started}


def _key_in(path: str) -> str:
    """What stands where a path of a recording has its key."""
    return path.removeprefix(AUDIO_PATH).removesuffix(TIMINGS)


async def _told(exchange: Exchange, checks: dict[str, str], **more: str) -> web.StreamResponse:
    failing = {name: why for name, why in checks.items() if why}
    body = msgspec.json.encode({"status": "failing" if failing else "ok", **more, "checks": checks})
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return await exchange.send(503 if failing else 200, headers, body)


def _is_protobuf(request: web.BaseRequest) -> bool:
    return protobuf.is_protobuf(request.headers.get("Content-Type", ""))


def _directives(lines: "list[str] | tuple[str, ...]") -> Directives:
    if not lines:
        return Directives()
    named = {each.strip().lower() for line in lines for each in line.split(",")}
    return Directives(
        no_cache="no-cache" in named or "max-age=0" in named,
        no_store="no-store" in named,
        only_if_cached="only-if-cached" in named,
    )
