"""The demo TTS cluster: the Speeko dialect over HTTP, streamed while it is spoken, with knobs to make it misbehave.

Keeps the rule that whoever leaves, nothing is left behind: no process, no count of a request in flight. It does not
know the edge.
"""

import asyncio
import hmac
import json
import random
import secrets
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass

from aiohttp import web

from edgecache.demo import espeak, speaking
from edgecache.demo.asked import Asked, read
from edgecache.demo.distance import Relay, hang_up
from edgecache.demo.knobs import Knobs
from edgecache.demo.pcm import wav_header
from edgecache.demo.tone import TAKE_BITS
from edgecache.dialects.speeko import TIMINGS_HEADER
from edgecache.errors import ClientError, SettingsError, SpeechError

_BODY_BYTES = 1 << 20
_TIMINGS_KEPT = 1000


@dataclass(slots=True)
class Counters:
    """What `GET /stats` shows. in_flight: requests being answered now. aborted: the client left first."""

    requests: int = 0
    syntheses: int = 0
    in_flight: int = 0
    aborted: int = 0


class _Unframed(web.StreamResponse):
    """A body that ends when the connection does."""

    _length_check = False  # aiohttp then adds neither length nor chunks, as it does for WebSockets


class Origin:
    """One demo cluster. `start()`, then `port`; `close()` hangs up on whoever is still listening."""

    def __init__(self, knobs: Knobs, host: str = "127.0.0.1", port: int = 0, api_key: str | None = None) -> None:
        self.knobs = knobs
        self.host = host
        self.port = port
        self.counters = Counters()
        self._api_key = api_key
        self._errors = random.Random(knobs.seed)
        self._changed = asyncio.Event()
        self._released = asyncio.Event()
        #: When which word is heard, of the last answers, by the name that each was given.
        self._timings: dict[str, bytes] = {}
        self._answering: set[asyncio.Task[object]] = set()
        self._runner: web.AppRunner | None = None
        self._relay: Relay | None = None

    def __repr__(self) -> str:
        return f"<Origin {self.url} {self.counters}>"

    @property
    def url(self) -> str:
        """What a cluster's `url` is to be."""
        return f"http://{self.host}:{self.port}"

    @property
    def voice(self) -> str:
        """The default voice: espeak-ng or tone."""
        return speaking.default_voice(self.knobs.voice)

    async def start(self) -> None:
        """Listens; `port` is known from here on. SettingsError: a voice that can't be. OSError: the port is taken."""
        if self.voice not in ("espeak-ng", speaking.TONE):
            raise SettingsError(f"voice {self.voice!r}: there are auto, espeak-ng and tone")
        if self.voice == "espeak-ng" and espeak.program() is None:
            raise SettingsError("voice espeak-ng: install espeak-ng, or edgecache[demo], or choose tone")
        app = web.Application(client_max_size=_BODY_BYTES)
        app.add_routes(
            [
                web.post("/v1/tts", self._tts),
                web.get("/v1/timings/{name}", self._tell_timings),
                web.get("/healthz", self._healthz),
                web.get("/stats", self._stats),
                web.get("/voices", self._voices),
            ]
        )
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await self._listen(self._runner)
        except OSError:
            await self.close()
            raise

    async def _listen(self, runner: web.AppRunner) -> None:
        far = self.knobs.distance_ms > 0
        await web.TCPSite(runner, "127.0.0.1" if far else self.host, 0 if far else self.port).start()
        port: int = runner.addresses[0][1]
        if far:
            self._relay = Relay(("127.0.0.1", port), self.knobs.distance_ms / 1000, self.host, self.port)
            await self._relay.start()
        self.port = self._relay.port if self._relay else port

    async def close(self) -> None:
        """Stops listening, hangs up, and waits until nothing is being answered any more."""
        if self._relay:
            await self._relay.close()
        for task in list(self._answering):
            task.cancel()
        await self.until(lambda counters: counters.in_flight == 0)
        if self._runner:
            await self._runner.cleanup()
        self._relay = self._runner = None

    async def until(self, holds: Callable[[Counters], bool]) -> None:
        """Waits until this holds of the counters: `until(lambda c: c.aborted == 1)`."""
        while not holds(self.counters):
            await self._changed.wait()

    def release(self) -> None:
        """Lets the answers that stall now go on to their end."""
        self._released.set()
        self._released = asyncio.Event()

    def _count(self, **changes: int) -> None:
        for name, change in changes.items():
            setattr(self.counters, name, getattr(self.counters, name) + change)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _stats(self, _request: web.Request) -> web.Response:
        return web.json_response(asdict(self.counters))

    async def _voices(self, _request: web.Request) -> web.Response:
        named = ["default", speaking.TONE, *(espeak.NAMED if espeak.program() else ())]
        return web.json_response({"default": self.voice, "voices": [{"voice_id": name} for name in named]})

    async def _tts(self, request: web.Request) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self._answering.add(task)
        self._count(requests=1, in_flight=1)
        try:
            return await self._answer(request)
        except SpeechError as error:
            return _refusal(error)
        except (asyncio.CancelledError, ConnectionError):
            self._count(aborted=1)
            raise
        finally:
            self._answering.discard(task)
            self._count(in_flight=-1)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self._admit(request)
        asked = read(await request.read(), self.knobs)
        if self.counters.in_flight > self.knobs.max_concurrent:
            raise ClientError(429, "too_many_requests", "all voices are busy", retry_after_s=1)
        await asyncio.sleep(asked.knobs.first_byte_ms / 1000)
        spoiled = self._spoiled(asked)
        if spoiled is not None:
            return spoiled
        self._count(syntheses=1)
        take = secrets.randbits(TAKE_BITS) if asked.knobs.take else None
        timings = bytearray()
        pieces = speaking.body(asked, take, timings)
        async with aclosing(pieces):
            response = await self._send(request, asked, pieces)
        self._keep_timings(response.headers.get(TIMINGS_HEADER, ""), timings)
        return response

    def _admit(self, request: web.Request) -> None:
        given = request.headers.get("X-API-Key", "")
        if self._api_key is not None and not hmac.compare_digest(given.encode(), self._api_key.encode()):
            raise ClientError(401, "bad_api_key", "X-API-Key is missing or wrong")

    def _keep_timings(self, path: str, timings: bytearray) -> None:
        if path and timings:
            self._timings[path] = bytes(timings)
        if len(self._timings) > _TIMINGS_KEPT:
            del self._timings[next(iter(self._timings))]

    async def _tell_timings(self, request: web.Request) -> web.Response:
        try:
            self._admit(request)
        except ClientError as error:
            return _refusal(error)
        told = self._timings.get(request.path)
        if told is None:
            return _refusal(ClientError(404, "no_timings", "there are none for this, or not any more"))
        return web.Response(body=told, content_type="application/json")

    def _spoiled(self, asked: Asked) -> web.Response | None:
        """The answer of a cluster that does not speak at all; None: it does."""
        knobs = asked.knobs
        said = speaking.media_type(asked)
        if knobs.status != 200:
            wait_s = knobs.retry_after_s or None
            return _refusal(SpeechError(knobs.status, "as_asked", "the knob `status` says so", retry_after_s=wait_s))
        if knobs.error_rate and self._errors.random() < knobs.error_rate:
            return _refusal(SpeechError(500, "synthesis_failed", "the knob `error_rate` says so"))
        if knobs.json_error or knobs.lie:
            excuse = _refusal(SpeechError(200, "synthesis_failed", "an error that calls itself a success"))
            if knobs.lie:
                excuse.headers["Content-Type"] = "audio/mpeg"
            return excuse
        if knobs.empty:
            nothing = wav_header(speaking.rate_hz(asked), 0) if asked.format == "wav" else b""
            return web.Response(body=nothing, headers={"Content-Type": said})
        return None

    async def _send(
        self, request: web.Request, asked: Asked, pieces: AsyncGenerator[bytes, None]
    ) -> web.StreamResponse:
        # The status is sent when there is something to hear, so that a voice that can't be is still a clean refusal.
        piece = await anext(pieces, b"")
        response = _Unframed() if asked.knobs.unframed else web.StreamResponse()
        if asked.knobs.unframed:
            response.force_close()
        response.headers["Content-Type"] = speaking.media_type(asked)
        if asked.knobs.tags:
            response.headers["Surrogate-Key"] = asked.knobs.tags
        if speaking.tells_timings(asked):
            response.headers[TIMINGS_HEADER] = f"/v1/timings/{secrets.token_urlsafe(12)}"
        await response.prepare(request)
        stop_bytes = asked.knobs.stop_bytes
        sent_bytes = 0
        try:
            while piece:
                if stop_bytes is not None and sent_bytes + len(piece) >= stop_bytes:
                    kept = stop_bytes - sent_bytes
                    await response.write(piece[:kept])
                    if asked.knobs.cuts:
                        hang_up(request.transport, reset=asked.knobs.reset)
                        return response
                    await self._released.wait()
                    piece, stop_bytes = piece[kept:], None
                    continue
                await response.write(piece)
                sent_bytes += len(piece)
                piece = await anext(pieces, b"")
        except SpeechError:
            # Too late for a status: the client can tell by the body's missing end.
            hang_up(request.transport, reset=False)
        return response


def _refusal(error: SpeechError) -> web.Response:
    told = {"error": {"message": error.message, "code": error.code, "param": error.param}}
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    return web.Response(
        status=error.status, body=json.dumps(told).encode(), content_type="application/json", headers=headers
    )


async def run(name: str, origin: Origin) -> None:
    """Serves until SIGINT or SIGTERM; says in one line that it does."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, over.set)
    await origin.start()
    try:
        how = f"voice: {origin.voice}, distance {origin.knobs.distance_ms:g} ms"
        print(f"demo cluster {name} listening on {origin.url} ({how})", flush=True)
        await over.wait()
    finally:
        await origin.close()
        for sign in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(sign)
