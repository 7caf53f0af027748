"""An asyncio client of edges: the nearest of several by round trip, another when it fails, speech as it comes.

    async with Client(["https://syd.example", "https://sin.example"], api_key=KEY) as client:
        async with client.speak("Hello", voice_id="default") as speech:
            async for chunk in speech: ...

Keeps the rule that nothing is heard twice: another edge is asked only before the first byte; an answer that breaks later
is an error (`BrokenOff`). Importing it loads neither aiohttp nor anything of the daemon; entering a `Client` loads aiohttp.
"""

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import aiohttp

    from edgecache.heard import Event
    from edgecache.speech.utterance import Value

#: Statuses after which another edge may do better: this one, or what is behind it, can't now.
_ELSEWHERE = frozenset({500, 502, 503, 504})
#: Long enough for half the world; an edge that is farther is not near.
CONNECT_S = 3.0
#: How long a measured order of edges is believed.
MEASURED_S = 300.0
#: Between two reads of a body. Long text may wait for a cluster.
SILENCE_S = 30.0
READ_BYTES = 64 << 10


class ClientFault(Exception):
    """There is no speech, or no more of it; the message is for people."""


class NoEdge(ClientFault):
    """None of the edges can be reached."""


class Refused(ClientFault):
    """An edge answered with an error. code: stable, for programs."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s


class BrokenOff(ClientFault):
    """The speech broke off after it had begun: what was heard is not whole."""


@dataclass(frozen=True, slots=True)
class Distance:
    """An edge and its round trip; None: it can't be reached."""

    edge: str
    rtt_ms: float | None


class Speech:
    """One answer under way: iterate over it for the audio."""

    def __init__(self, edge: str, answer: "aiohttp.ClientResponse") -> None:
        self.edge = edge
        self.headers: Mapping[str, str] = answer.headers
        self._answer = answer

    def __repr__(self) -> str:
        return f"<Speech {self.media_type} from {self.edge}>"

    @property
    def media_type(self) -> str:
        """What the audio is."""
        return self.headers.get("Content-Type", "")

    @property
    def hit(self) -> bool:
        """Whether the edge had it."""
        return "; hit" in self.headers.get("Cache-Status", "")

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        import aiohttp

        try:
            while chunk := await self._answer.content.readany():
                yield chunk
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise BrokenOff(f"{self.edge} broke off in mid-speech") from error

    async def whole(self) -> bytes:
        """All of it. BrokenOff: there is not all of it."""
        return b"".join([chunk async for chunk in self])


class Client:
    """Asks edges for speech. edges: their URLs, in any order."""

    def __init__(self, edges: Sequence[str], api_key: str | None = None) -> None:
        if not edges:
            raise ValueError("a client needs at least one edge")
        self._edges = [each.rstrip("/") for each in edges]
        self._api_key = api_key
        self._order: list[str] = []
        self._measured_s = 0.0
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"<Client of {', '.join(self._order or self._edges)}>"

    async def __aenter__(self) -> Self:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
        headers = {} if self._api_key is None else {"X-API-Key": self._api_key}
        self._session = aiohttp.ClientSession(timeout=timeout, headers=headers, auto_decompress=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    # Which edge.

    async def distances(self) -> list[Distance]:
        """Every edge with its round trip, measured now by opening a connection; the nearest first."""
        found = await asyncio.gather(*[_measured(each) for each in self._edges])
        return sorted(found, key=lambda each: (each.rtt_ms is None, each.rtt_ms))

    async def order(self) -> list[str]:
        """The edges to ask, the nearest first; unreachable ones last. Measured every few minutes."""
        now_s = asyncio.get_running_loop().time()
        if len(self._edges) == 1:
            return self._edges
        if not self._order or now_s - self._measured_s > MEASURED_S:
            self._order, self._measured_s = [each.edge for each in await self.distances()], now_s
        return list(self._order)

    def _failed(self, edge: str) -> None:
        """It is asked last, until distances are measured again."""
        if edge in self._order:
            self._order.remove(edge)
            self._order.append(edge)

    # Speech.

    @asynccontextmanager
    async def speak(self, text: str, **fields: "Value") -> AsyncIterator[Speech]:
        """This text's speech, from the nearest edge that gives it. ClientFault: none does."""
        async with AsyncExitStack() as stack:
            yield await self._answered(stack, text, fields)

    async def events(self, text: str, **fields: "Value") -> AsyncGenerator["Event", None]:
        """This text's speech as events: how it begins, each sentence of a long text, sounds with their offsets, its end.

        In protobuf messages, so that every sound says where it is heard. ClientFault: there is no speech, or no more of it.
        """
        from edgecache.heard import MEDIA_TYPE, Events, Failed, Garbled

        async with AsyncExitStack() as stack:
            speech = await self._answered(stack, text, fields, "/v1/tts/stream", MEDIA_TYPE)
            heard = Events()
            try:
                async for chunk in speech:
                    for event in heard.feed(chunk):
                        if isinstance(event, Failed):
                            raise Refused(event.status, event.code, event.message, event.retry_after_s)
                        yield event
            except Garbled as error:
                raise BrokenOff(f"{speech.edge} sends what no edge does: {error}") from error
            if not heard.over:
                raise BrokenOff(f"{speech.edge} broke off in mid-speech")

    async def _answered(
        self,
        stack: AsyncExitStack,
        text: str,
        fields: "Mapping[str, Value]",
        path: str = "/v1/tts",
        accept: str = "audio/*",
    ) -> Speech:
        import aiohttp

        assert self._session is not None, "use it as `async with Client(...) as client`"
        body = json.dumps({**fields, "text": text}, ensure_ascii=False).encode()
        headers = {"Content-Type": "application/json", "Accept": accept}
        fault: ClientFault = NoEdge("there is no edge to ask")
        for edge in await self.order():
            try:
                asking = self._session.post(edge + path, data=body, headers=headers)
                answer = await stack.enter_async_context(asking)
                if answer.status == 200:
                    return Speech(edge, answer)
                fault = await _refusal(answer)
                if answer.status not in _ELSEWHERE:
                    raise fault
            except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
                fault = NoEdge(f"{edge} can't be reached, or hung up: {_why(error)}")
            self._failed(edge)
        raise fault

    async def timings(self, speech: Speech) -> dict[str, list[dict[str, int]]] | None:
        """When which word of it is heard; None: its cluster told none. To be asked once it was heard to its end."""
        import aiohttp

        where = speech.headers.get("Content-Location")
        if where is None or self._session is None:
            return None
        try:
            async with self._session.get(f"{speech.edge}{where}/timings") as answer:
                if answer.status != 200:
                    return None
                told: dict[str, list[dict[str, int]]] = await answer.json()
                return told
        except (aiohttp.ClientError, OSError) as error:
            raise NoEdge(f"{speech.edge} can't be reached, or hung up: {type(error).__name__}") from error

    async def typed(self, pieces: AsyncIterable[str], **fields: "Value") -> AsyncGenerator[bytes, None]:
        """Text that comes bit by bit, spoken sentence by sentence as they complete, as one stream of audio.

        Each sentence is asked for while the one before it is heard, and cut as an edge cuts long text, so that what
        was said before is a hit. ClientFault: a sentence can't be had; what was given until then stands.
        """
        from edgecache.errors import SpeechError
        from edgecache.speech.joining import Joiner
        from edgecache.speech.scan import NotAudio

        joiner = Joiner()
        rate, form = fields.get("sample_rate"), fields.get("format")
        try:
            async with aclosing(self._spoken(pieces, fields)) as sounds:
                async for media_type, audio in sounds:
                    joiner.begin(media_type, str(form) if form else None, rate if isinstance(rate, int) else None)
                    for at in range(0, len(audio), READ_BYTES):
                        if sound := joiner.feed(audio[at : at + READ_BYTES]):
                            yield sound
        except (SpeechError, NotAudio) as error:
            raise ClientFault(error.message) from error

    async def streamed(self, pieces: AsyncIterable[str], **fields: "Value") -> AsyncGenerator[bytes, None]:
        """The same over a WebSocket, where the edge cuts the sentences: each is heard from its first byte.

        ClientFault: it can't go on. What was given until then stands, and is not asked for again.
        """
        import aiohttp

        async with AsyncExitStack() as stack:
            edge, socket = await self._connected(stack)
            failed = asyncio.Event()
            sending = asyncio.create_task(_send(socket, pieces, fields, failed))
            try:
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.BINARY:
                        yield message.data
                    elif message.type is aiohttp.WSMsgType.TEXT:
                        told = json.loads(message.data)
                        if told["type"] == "synthesis_complete":
                            return
                        if told["type"] == "error":
                            raise Refused(told.get("status", 502), told["error"]["code"], told["error"]["message"])
                if failed.is_set():
                    await sending  # raises what went wrong with the text
                raise BrokenOff(f"{edge} broke off in mid-speech")
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)

    async def _connected(self, stack: AsyncExitStack) -> "tuple[str, aiohttp.ClientWebSocketResponse]":
        import aiohttp

        assert self._session is not None, "use it as `async with Client(...) as client`"
        fault: ClientFault = NoEdge("there is no edge to ask")
        for edge in await self.order():
            try:
                return edge, await stack.enter_async_context(self._session.ws_connect(f"{edge}/ws/tts/stream"))
            except aiohttp.WSServerHandshakeError as error:
                fault = Refused(error.status, "no_session", "the edge opens no WebSocket for this")
                if error.status not in _ELSEWHERE:
                    raise fault from error
            except (aiohttp.ClientError, OSError) as error:
                fault = NoEdge(f"{edge} can't be reached, or hung up: {_why(error)}")
            self._failed(edge)
        raise fault

    async def _spoken(
        self, pieces: AsyncIterable[str], fields: "Mapping[str, Value]"
    ) -> AsyncGenerator[tuple[str, bytes], None]:
        """Each sentence's media type and audio, the next ones asked for meanwhile."""
        waiting: asyncio.Queue[asyncio.Task[tuple[str, bytes]] | None] = asyncio.Queue(maxsize=1)

        async def ask() -> None:
            try:
                async with aclosing(_sentences(pieces, str(fields.get("language", "en")))) as sentences:
                    async for sentence in sentences:
                        await waiting.put(asyncio.create_task(self._heard(sentence, fields)))
            finally:
                await waiting.put(None)

        asking = asyncio.create_task(ask())
        speaking: asyncio.Task[tuple[str, bytes]] | None = None
        try:
            while speaking := await waiting.get():
                yield await speaking
            await asking
        finally:
            asking.cancel()
            left = [speaking] if speaking else []
            while not waiting.empty():
                left += [each] if (each := waiting.get_nowait()) else []
            for each in left:
                each.cancel()
            await asyncio.gather(asking, *left, return_exceptions=True)

    async def _heard(self, sentence: str, fields: "Mapping[str, Value]") -> tuple[str, bytes]:
        async with self.speak(sentence, **fields) as speech:
            return speech.media_type, await speech.whole()


async def _send(
    socket: "aiohttp.ClientWebSocketResponse",
    pieces: AsyncIterable[str],
    fields: "Mapping[str, Value]",
    failed: asyncio.Event,
) -> None:
    """Sends the text as it comes. failed: is set if it does not come to its end, and then nobody waits for it."""
    whole = False
    try:
        async for piece in pieces:
            if piece:
                await socket.send_json({**fields, "type": "text", "text": piece})
                fields = {}
        await socket.send_json({"type": "flush"})
        whole = True
    except ConnectionError:
        whole = True  # the socket is gone, and whoever listens is told so
    finally:
        if not whole:
            failed.set()
            await socket.close()


async def _sentences(pieces: AsyncIterable[str], language: str) -> AsyncGenerator[str, None]:
    from edgecache.speech.sentences import SentenceLengths, Sentences

    sentences = Sentences(language, SentenceLengths())
    async for piece in pieces:
        sentences.feed(piece)
        while (found := sentences.cut()) is not None:
            for each in found:
                if each.spoken:
                    yield each.spoken
            await asyncio.sleep(0)
    sentences.flush()
    while (found := sentences.cut()) is not None:
        for each in found:
            if each.spoken:
                yield each.spoken


async def _measured(edge: str) -> Distance:
    """How long a TCP connection takes to open: one round trip."""
    parts = urlsplit(edge)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    try:
        async with asyncio.timeout(CONNECT_S):
            port = parts.port or (443 if parts.scheme == "https" else 80)
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except (OSError, ValueError):
        return Distance(edge, None)
    rtt_ms = (loop.time() - began_s) * 1000
    writer.close()
    return Distance(edge, rtt_ms)


def _why(error: Exception) -> str:
    """Why an edge can't be reached, in the system's words where it has any."""
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number is not None and number > 0 else str(error) or type(error).__name__


async def _refusal(answer: "aiohttp.ClientResponse") -> Refused:
    """What an edge says of why not, or what whatever answered says."""
    told = await answer.content.read(READ_BYTES)
    wait = answer.headers.get("Retry-After", "")
    retry_after_s = int(wait) if wait.isdigit() else None
    try:
        error = json.loads(told)["error"]
        return Refused(answer.status, str(error["code"]), str(error["message"]), retry_after_s)
    except (ValueError, KeyError, TypeError):
        return Refused(answer.status, "not_an_edge", "what answers there is no edge", retry_after_s)
