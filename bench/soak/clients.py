"""Clients of a soak: raw audio, GET, server-sent events, protobuf and WebSocket, read by libraries that are not ours.

Each tells what it heard and how it ended as a client sees it; none knows what is due. Most read to the end, some slowly with
little room to receive, some leave early.
"""

import asyncio
import json
import socket
import time
from asyncio import timeout
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp

from bench.soak.plan import Call, Manner, Way, fields
from bench.soak.verdicts import End, Heard
from tests import spoken

#: Whoever has to wait so long hears nothing more: it hangs.
HANG_S = 45.0
SLOW_READ_BYTES, SLOW_READ_S = 8192, 0.06
#: So much of a text that comes bit by bit is in a message.
TYPED_CHARACTERS = 25
#: One who leaves has heard at most so much.
LEAVE_BYTES = 60_000
_RECEIVE_BYTES = 8192
_ACCEPT = {Way.EVENTS: "text/event-stream", Way.MESSAGES: "application/x-protobuf"}
_GONE = (aiohttp.ClientError, ConnectionError)


def _narrow(address: Any) -> socket.socket:
    """A socket with little room to receive, so that a slow reader is felt at the other end."""
    made = socket.socket(address[0], address[1], address[2])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
    return made


@dataclass(slots=True)
class _Answer:
    """What is known of an answer so far."""

    body: bytearray
    end: End = End.UNREACHABLE
    code: str = ""
    cache: str = ""


class Clients:
    """All of them. `now` is in seconds of the run; `tell` hears of every answer."""

    def __init__(self, url: str, tell: Callable[[Heard], None]) -> None:
        self._url = url
        self._tell = tell
        self._began_s = time.monotonic()
        self._left = AsyncExitStack()
        self._quick: aiohttp.ClientSession
        self._slow: aiohttp.ClientSession

    async def __aenter__(self) -> "Clients":
        limits = aiohttp.ClientTimeout(total=None)
        quick = aiohttp.TCPConnector(limit=0, keepalive_timeout=5.0)
        self._quick = await self._left.enter_async_context(aiohttp.ClientSession(connector=quick, timeout=limits))
        slow = aiohttp.TCPConnector(limit=0, force_close=True, socket_factory=_narrow)
        self._slow = await self._left.enter_async_context(
            aiohttp.ClientSession(connector=slow, timeout=limits, read_bufsize=_RECEIVE_BYTES)
        )
        self._began_s = time.monotonic()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._left.aclose()

    @property
    def now(self) -> float:
        return time.monotonic() - self._began_s

    async def make(self, call: Call, manner: Manner) -> None:
        """One client, from its coming to its going."""
        if call.way is Way.SOCKET:
            await self._talk(call, manner)
        else:
            await self._ask(call, manner)

    async def _ask(self, call: Call, manner: Manner) -> None:
        asked, began_s, answer = fields(call.texts[0]), self.now, _Answer(bytearray())
        try:
            async with timeout(HANG_S):
                await self._read(call, asked, manner, answer)
        except TimeoutError:
            answer.end = End.HUNG
        except _GONE as error:
            answer.end = End.BROKEN if answer.body else End.UNREACHABLE
            answer.code = type(error).__name__
        if call.way in _ACCEPT and answer.end is not End.REFUSED:
            _unwrap(call.way, answer)
        self._enter(call, call.texts[0], began_s, answer)

    async def _read(self, call: Call, asked: dict[str, Any], manner: Manner, answer: _Answer) -> None:
        session = self._slow if manner is Manner.SLOW else self._quick
        async with self._request(session, call.way, asked) as response:
            answer.cache = _cache(response.headers.get("Cache-Status", ""))
            if response.status != 200:
                answer.end, answer.code = End.REFUSED, _code(response.status, await response.read())
                return
            leave_bytes = int(call.luck * LEAVE_BYTES) if manner is Manner.LEAVE else None
            while piece := await response.content.read(SLOW_READ_BYTES if manner is Manner.SLOW else 1 << 16):
                answer.body += piece
                if leave_bytes is not None and len(answer.body) >= leave_bytes:
                    answer.end = End.LEFT
                    response.close()
                    return
                if manner is Manner.SLOW:
                    await asyncio.sleep(SLOW_READ_S)
            answer.end = End.WHOLE

    def _request(self, session: aiohttp.ClientSession, way: Way, asked: dict[str, Any]) -> Any:
        if way is Way.GET:
            return session.get(f"{self._url}/v1/tts", params=asked)
        if way in _ACCEPT:
            return session.post(f"{self._url}/v1/tts/stream", json=asked, headers={"Accept": _ACCEPT[way]})
        return session.post(f"{self._url}/v1/tts", json=asked)

    def _enter(self, call: Call, text: int, began_s: float, answer: _Answer) -> None:
        self._tell(
            Heard(
                text,
                fields(text),
                call.way,
                began_s,
                self.now,
                answer.end,
                bytes(answer.body),
                answer.code,
                answer.cache,
            )
        )

    async def _talk(self, call: Call, manner: Manner) -> None:
        """A session: all texts are asked for at once, and heard in order."""
        waiting, began_s = list(call.texts), self.now
        answer = _Answer(bytearray())
        session = self._slow if manner is Manner.SLOW else self._quick
        try:
            async with timeout(HANG_S), session.ws_connect(f"{self._url}/ws/tts/stream", max_msg_size=0) as line:
                for at, text in enumerate(call.texts):
                    for message in _messages(at, fields(text)):
                        await line.send_json(message)
                stop_bytes = int(call.luck * LEAVE_BYTES) if manner is Manner.LEAVE else None
                while waiting:
                    answer = _Answer(bytearray())
                    await _hear(line, answer, manner, stop_bytes)
                    self._enter(call, waiting.pop(0), began_s, answer)
                    if answer.end in (End.LEFT, End.UNREACHABLE):
                        break
                    if answer.end is End.BROKEN and line.closed:
                        break
        except TimeoutError:
            answer.end = End.HUNG
        except aiohttp.WSServerHandshakeError as error:
            answer.end, answer.code = End.REFUSED, f"handshake {error.status}"
        except _GONE as error:
            answer.end, answer.code = End.UNREACHABLE, type(error).__name__
        if answer.end in (End.HUNG, End.REFUSED, End.UNREACHABLE) and waiting and not answer.body:
            self._enter(call, waiting[0], began_s, answer)


def _messages(at: int, asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """How a text is asked for in a session: at once, or bit by bit if it is spoken sentence by sentence."""
    if "chunking" not in asked:
        yield {"id": at, **asked}
        return
    how = {name: value for name, value in asked.items() if name not in ("chunking", "text")}
    for place in range(0, len(asked["text"]), TYPED_CHARACTERS):
        yield {"type": "text", "id": at, "text": asked["text"][place : place + TYPED_CHARACTERS], **how}
        how = {}
    yield {"type": "flush", "id": at}


async def _hear(line: aiohttp.ClientWebSocketResponse, answer: _Answer, manner: Manner, stop_bytes: int | None) -> None:
    """One text of a session, to its end."""
    while True:
        message = await line.receive()
        match message.type:
            case aiohttp.WSMsgType.BINARY:
                answer.body += message.data
                if stop_bytes is not None and len(answer.body) >= stop_bytes:
                    answer.end = End.LEFT
                    return
                if manner is Manner.SLOW:
                    await asyncio.sleep(SLOW_READ_S / 2)
            case aiohttp.WSMsgType.TEXT:
                told = json.loads(message.data)
                if told["type"] == "sentence":
                    continue
                if told["type"] == "error":
                    answer.end = End.BROKEN if answer.body else End.REFUSED
                    answer.code = told["error"]["code"]
                else:
                    answer.end, answer.cache = End.WHOLE, told["cache"]
                    if told["bytes"] != len(answer.body):
                        answer.end, answer.code = End.ODD, f"told {told['bytes']} bytes"
                return
            case _:
                answer.end = End.BROKEN if answer.body else End.UNREACHABLE
                answer.code = f"closed {line.close_code}"
                return


def _unwrap(way: Way, answer: _Answer) -> None:
    """The audio in an answer of events or messages, and what its last one says of the end."""
    read = spoken.of_events if way is Way.EVENTS else spoken.of_messages
    try:
        told = read(bytes(answer.body))
    except AssertionError as error:  # what the protocol forbids
        answer.end, answer.code = End.ODD, str(error).partition("\n")[0]
        answer.body.clear()
        return
    answer.body[:] = told.audio
    answer.cache = told.metadata.get("cache", answer.cache)
    if answer.end is End.WHOLE:
        answer.end = End.WHOLE if told.ended == "done" else End.BROKEN
        answer.code = "" if told.ended == "done" else str(told.end.get("error", {}).get("code", "cut off"))


def _cache(status: str) -> str:
    if not status:
        return ""
    return "hit" if "; hit" in status else "joined" if "; collapsed" in status else "miss"


def _code(status: int, body: bytes) -> str:
    try:
        return f"{status} {json.loads(body)['error']['code']}"
    except (ValueError, KeyError, TypeError):
        return str(status)
