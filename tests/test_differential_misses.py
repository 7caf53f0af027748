"""Misses through an edge with lanes of its own and through one without: a client can't tell, nor can a cluster or a log.

Each row is a conversation: what clusters say, and what a client does meanwhile. It is had twice, and what was heard, what
the cluster was asked, and what the edge tells of its exchanges is compared: everything but dates, ids of the edge's own
making, and how speech is cut into chunks. Both sides wait for one another, and never for time.
"""

import asyncio
import re
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import pytest

from edgecache.cache.status import Outcome, Result
from edgecache.clusters.cluster import Probing
from edgecache.delivery import head
from edgecache.delivery.limits import FastLane
from edgecache.demo import tone
from edgecache.fill.limits import FillLimits
from edgecache.node import Node
from edgecache.ops import log
from edgecache.ops.log import Logging
from tests.fake_clock import FakeClock
from tests.houses import PATIENT, settings
from tests.scripted_upstream import FIN, RST, ScriptedUpstream, chunk, chunked, whole
from tests.scripted_upstream import head as answers

pytestmark = pytest.mark.net

HANG_S = 20.0
TEXT = {"text": "hi"}
AUDIO = tone.audio(TEXT)
FIRST, REST = AUDIO[:4000], AUDIO[4000:]
BEGUN = answers("200 OK", "Content-Type: audio/wav", "Transfer-Encoding: chunked")
#: The cluster waits until the client does `GO`.
WAIT = "wait"
WHOLE = [chunked(FIRST, REST)]
SLOW = [BEGUN + chunk(FIRST), WAIT, chunk(REST) + chunk(b"")]
FAILS = [answers("500 Internal Server Error", "Content-Length: 0")]
_VARIES = re.compile(
    rb"(\r\nDate: |\r\nX-Request-Id: |urn:edgecache:request:)(?:[0-9a-f]{8}-\d+|[A-Z][a-z]{2}, [^\r]*GMT)"
)


def asks(text: str = "hi", *lines: str, target: str = "/v1/tts", **more: str) -> bytes:
    body = (more.get("body") or f'{{"text":"{text}"}}').encode()
    first = f"{more.get('method', 'POST')} {target} {more.get('version', 'HTTP/1.1')}"
    said = [first, "Host: x", "Content-Type: application/json", *lines, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(said).encode() + body


ASKS = asks()
LONG = asks(body='{"text":"two","more":"' + "x" * 20_000 + '"}')
TRACED = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Do(Enum):
    """What happens besides what is sent."""

    GO = "the cluster goes on"
    ASKED = "the cluster was asked once more"
    BEGUN = "some of one more answer came"
    ENDED = "one more answer ended"
    HALF_CLOSE = "the client says no more"
    RESET = "the client is gone"
    FLIES = "another client has asked for something else, which goes on"
    DRAIN = "the edge drains"
    LATER = "all that was recorded is stale"
    CLOSED = "the edge has closed"


@dataclass(frozen=True)
class Talk:
    """A conversation. said: what the cluster answers, to one request after the other. taken: by the lane for misses."""

    said: Sequence[Sequence[Any]]
    does: Sequence[bytes | Do]
    taken: int = 1
    #: Whether the log has the same of it.
    logged_alike: bool = True
    changed: dict[str, Any] = field(default_factory=dict)


G, A, B, E, H, R, F, D, L, C = Do


def pieces(text: bytes, size: int) -> list[bytes]:
    return [text[at : at + size] for at in range(0, len(text), size)]


TALKS: dict[str, Talk] = {
    "a miss": Talk([WHOLE], [ASKS, E]),
    "a miss, then a hit": Talk([WHOLE], [ASKS, E, ASKS, E, ASKS, E]),
    "two misses": Talk([WHOLE, WHOLE], [asks("one"), E, asks("two"), E], 2),
    "a miss of a stream": Talk([WHOLE], [asks(target="/v1/tts/stream"), E, ASKS, E]),
    "an id of the client's": Talk([WHOLE], [asks("hi", "X-Request-Id: mine"), E]),
    "traced": Talk([WHOLE], [asks("hi", TRACED, "tracestate: a=b"), E]),
    "badly traced": Talk([WHOLE], [asks("hi", "traceparent: 00-x"), E]),
    "many fields": Talk([WHOLE], [asks(body='{"text":"hi","voice_id":"a","speaking_rate":1.0,"x":{"y":[1,null]}}'), E]),
    "a piece after the other": Talk([SLOW], [ASKS, B, G, E]),
    "in two segments": Talk([WHOLE], [ASKS[:-13], ASKS[-13:], E]),
    "with a length": Talk([[whole(AUDIO)]], [ASKS, E]),
    "to the connection's end": Talk(
        [[answers("200 OK", "Content-Type: audio/wav") + AUDIO, FIN]] * 2, [ASKS, E, ASKS, E], 2
    ),
    # What goes wrong at the cluster.
    "the cluster fails": Talk([FAILS, WHOLE], [ASKS, E, asks("two"), E], 2),
    "the cluster is busy": Talk([[answers("429 Too Many", "Retry-After: 7", "Content-Length: 0")]], [ASKS, E]),
    "it refuses the text": Talk([[answers("400 Bad Request", "Content-Length: 0")]], [ASKS, E]),
    "it hangs up": Talk([[FIN]], [ASKS, E]),
    "it hangs up before any audio": Talk([[BEGUN, FIN]], [ASKS, E]),
    "it breaks off": Talk([[BEGUN + chunk(FIRST), WAIT, FIN]], [ASKS, B, G, C]),
    "it breaks off at once": Talk([[BEGUN + chunk(FIRST), FIN]], [ASKS, C]),
    "it is reset": Talk([[BEGUN + chunk(FIRST), WAIT, RST]], [ASKS, B, G, C]),
    "it ends within a chunk": Talk([[BEGUN + chunk(FIRST), WAIT, b"800\r\nxx", FIN]], [ASKS, B, G, C]),
    "it says nothing": Talk([[BEGUN + chunk(b"")]], [ASKS, E]),
    "it lies": Talk([[whole(b'{"no":1}', "audio/mpeg")]], [ASKS, E]),
    "it speaks JSON": Talk([[whole(b'{"no":1}', "application/json")]], [ASKS, E]),
    "what is stale is better": Talk([WHOLE, FAILS], [ASKS, E, L, ASKS, E], 2),
    "what is stale is made anew": Talk([WHOLE, WHOLE], [ASKS, E, L, ASKS, E, ASKS, E], 2),
    "there is too much to do": Talk(
        [SLOW], [F, asks("no"), E, G, asks("no"), E], 3, changed={"fills": FillLimits(max_flights=1)}
    ),
    # What a client does.
    "two at once": Talk([WHOLE, WHOLE], [ASKS + asks("two"), E, E], 0),
    "the next while it waits": Talk([[WAIT, *WHOLE], WHOLE], [ASKS, A, asks("two"), G, E, E], 2),
    "the next while it listens": Talk([SLOW, WHOLE], [ASKS, B, asks("two"), G, E, E], 2),
    "the same while it listens": Talk([SLOW], [ASKS, B, ASKS, G, E, E]),
    "two more while it listens": Talk([SLOW, WHOLE, WHOLE], [ASKS, B, asks("two") + asks("three"), G, E, E, E], 1),
    "part of the next while it listens": Talk([SLOW, WHOLE], [ASKS, B, ASKS[:40], G, E, ASKS[40:], E], 1),
    "much more while it listens": Talk([SLOW, WHOLE], [ASKS, B, *pieces(LONG * 5, 5000), G, *[E] * 6], 1),
    "rubbish while it listens": Talk([SLOW], [ASKS, B, b"\0\1\2\r\n\r\n", G, E, C]),
    "no more": Talk([WHOLE], [ASKS, H, E, C]),
    "no more, as it listens": Talk([SLOW], [ASKS, B, H, G, E, C]),
    "the next and no more": Talk([SLOW, WHOLE], [ASKS, B, asks("two"), H, G, E, E, C], 2),
    "no more, and it breaks off": Talk([[BEGUN + chunk(FIRST), WAIT, FIN]], [ASKS, B, H, G, C]),
    "gone before it speaks": Talk([[WAIT, *WHOLE]], [ASKS, A, R, G], logged_alike=False),
    "gone before it fails": Talk([[WAIT, *FAILS]], [ASKS, A, R, G], logged_alike=False),
    "gone as it listens": Talk([SLOW], [ASKS, B, R, G]),
    "joined": Talk([SLOW], [F, asks("else"), B, G, E], 2),
    # What is not taken.
    "once": Talk([WHOLE], [asks("hi", "Connection: close"), E, C], 0),
    "an old client": Talk([WHOLE], [asks(version="HTTP/1.0"), C], 0),
    "it expects": Talk([WHOLE], [asks("hi", "Expect: 100-continue"), E, E], 0),
    "events": Talk([WHOLE], [asks("hi", "Accept: text/event-stream", target="/v1/tts/stream"), E], 0),
    "not to be stored": Talk([WHOLE], [asks("hi", "Cache-Control: no-store"), E], 0),
    "not to be asked for": Talk([WHOLE], [asks("hi", "Cache-Control: only-if-cached"), E], 0),
    "in the background": Talk([WHOLE], [asks("hi", "Priority: u=7"), E], 0),
    "by GET": Talk([WHOLE], [b"GET /v1/tts?text=hi HTTP/1.1\r\nHost: x\r\n\r\n", E], 0),
    "no JSON": Talk([WHOLE], [asks(body="{"), E, ASKS, E], 1),
    "no text": Talk([WHOLE], [asks(body='{"text":""}'), E, ASKS, E], 1),
    "a field twice": Talk([WHOLE], [asks(body='{"text":"a","text":"b"}'), E, ASKS, E], 1),
    "too long": Talk([WHOLE], [asks("x" * 400_000), E], 0),
    "sentence by sentence": Talk(
        [WHOLE] * 2, [asks(body='{"text":"One. Two.","format":"wav","chunking":"sentence"}'), E], 0
    ),
    "with a query": Talk([WHOLE], [asks(target="/v1/tts?a=b"), E], 0),
    # The edge.
    "it drains, and a miss ends": Talk([SLOW], [ASKS, B, D, G, E, C]),
    "it drains, and a miss breaks off": Talk([[BEGUN + chunk(FIRST), WAIT, FIN]], [ASKS, B, D, G, C]),
    "it drains before it speaks": Talk([[WAIT, *WHOLE]], [ASKS, A, D, G, E, C]),
}


@dataclass(frozen=True)
class Answer:
    """One answer as a client reads it. whole: it ended as its head says."""

    head: bytes
    body: bytes
    whole: bool


def read(received: bytes) -> list[Answer]:
    """All answers that these bytes begin."""
    found: list[Answer] = []
    while received:
        said, blank, rest = received.partition(b"\r\n\r\n")
        length = re.search(rb"\r\nContent-Length: (\d+)", said)
        if not blank:
            body, ended, received = b"", False, b""
        elif b"\r\nTransfer-Encoding: chunked" in said:
            body, ended, received = unchunked(rest)
        elif said.startswith(b"HTTP/1.1 100"):
            body, ended, received = b"", True, rest
        else:
            size = int(length[1]) if length else len(rest)
            body, ended, received = rest[:size], len(rest) >= size, rest[size:]
        found.append(Answer(_VARIES.sub(rb"\1own", said), _VARIES.sub(rb"\1own", body), ended))
    return found


def unchunked(received: bytes) -> tuple[bytes, bool, bytes]:
    """The body so far, whether it has ended, and what is behind it."""
    parts: list[bytes] = []
    while True:
        size, line_end, rest = received.partition(b"\r\n")
        if not line_end or len(rest) < int(size, 16) + 2:
            return b"".join(parts), False, b""
        length = int(size, 16)
        parts.append(rest[:length])
        received = rest[length + 2 :]
        if not length:
            return b"".join(parts), True, received


class Client:
    """A client's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._got = bytearray()
        self.fate = "open"

    @property
    def heard(self) -> list[Answer]:
        return read(bytes(self._got))

    async def until(self, holds: Callable[[list[Answer]], bool]) -> None:
        """Reads until this is true of what came, or there is no more."""
        while self.fate == "open" and not holds(self.heard):
            try:
                came = await self._reader.read(1 << 16)
            except ConnectionResetError:
                self.fate = "reset"
                return
            self._got += came
            self.fate = self.fate if came else "closed"

    def send(self, segment: bytes) -> None:
        self._writer.write(segment)

    def half_close(self) -> None:
        self._writer.write_eof()

    def leave(self) -> None:
        self._writer.transport.abort()

    def reset(self) -> None:
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
        self.fate = "left"


@dataclass
class Conversation:
    """A talk being had with one edge."""

    talk: Talk
    node: Node
    clock: FakeClock
    cluster: ScriptedUpstream
    waits: list[asyncio.Event]
    client: Client
    others: list[Client] = field(default_factory=list)
    draining: "asyncio.Task[None] | None" = None
    asked: int = 0
    ended: int = 0

    async def go_on(self) -> None:
        for step in self.talk.does:
            if isinstance(step, bytes):
                self.client.send(step)
            else:
                await self._do(step)

    async def _do(self, step: Do) -> None:
        match step:
            case Do.GO:
                self.waits.pop(0).set()
            case Do.ASKED:
                self.asked += 1
                await self.cluster.asked(self.asked)
            case Do.BEGUN:
                await self.client.until(lambda heard: len(heard) > self.ended and bool(heard[self.ended].body))
            case Do.ENDED:
                self.ended += 1
                await self.client.until(lambda heard: sum(each.whole for each in heard) >= self.ended)
            case Do.CLOSED:
                await self.client.until(lambda _: False)
            case Do.HALF_CLOSE:
                self.client.half_close()
            case Do.RESET:
                self.client.reset()
                assert self.node._server is not None
                await self.node._server._empty.wait()
            case Do.FLIES:
                self.others.append(Client(*await asyncio.open_connection("127.0.0.1", self.node.port)))
                self.others[-1].send(asks("else"))
                await self.others[-1].until(lambda heard: bool(heard and heard[0].body))
            case Do.DRAIN:
                self.draining = asyncio.create_task(self.node.drain())
                await self.quiet(lambda: self.node.readiness.draining)
            case Do.LATER:
                self.clock.advance(self.node.settings.cache.freshness.ttl_s + 1)

    async def quiet(self, there: Callable[[], bool]) -> None:
        """Lets the edge, which runs in this loop, go on until it is there."""
        while not there():
            await asyncio.sleep(0)

    async def over(self) -> None:
        """Everything that was begun has ended, and was told."""
        if self.draining is not None:
            await self.draining
        await self.quiet(lambda: not (self.node.fills.under_way or any(self.node.tally.under_way.values())))
        for each in (self.client, *self.others):
            each.leave()
        await self.quiet(lambda: not self.node.status()["connections"])


@dataclass(frozen=True)
class Had:
    """What came of a conversation."""

    heard: list[Answer]
    fate: str
    asked: list[tuple[object, ...]]
    told: list[tuple[object, ...]]
    streaming: int


async def had(talk: Talk, patch: pytest.MonkeyPatch, *, fast: bool) -> tuple[Had, int]:
    """With such an edge. Also how many misses its own lane took."""
    outcomes: list[Outcome] = []
    patch.setattr(log, "access", outcomes.append)
    patch.setattr(head, "_ids", head.Ids(thousands=10**6))
    waits: list[asyncio.Event] = []

    def step(said: Any) -> Any:
        if said is not WAIT:
            return said
        waits.append(asyncio.Event())
        return waits[-1]

    clock = FakeClock()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(HANG_S))
        scripts = [[step(each) for each in script] for script in talk.said]
        cluster = await stack.enter_async_context(ScriptedUpstream(*scripts))
        more = {"fast_lane": FastLane(enabled=fast), "log": Logging(access=True), "timeouts": PATIENT, **talk.changed}
        node = Node(settings(cluster.url, probing=Probing(interval_s=3600.0, timeout_s=0.5), **more), clock)
        stack.push_async_callback(node.close)
        await node.start()
        client = Client(*await asyncio.open_connection("127.0.0.1", node.port))
        conversation = Conversation(talk, node, clock, cluster, waits, client)
        await conversation.go_on()
        await conversation.over()
        assert node._server is not None
        taken = 0 if node._server.misses is None else node._server.misses.taken
        return Had(
            client.heard, client.fate, requests(cluster), told(outcomes), sum(node.tally.streaming.values())
        ), taken


def requests(cluster: ScriptedUpstream) -> list[tuple[object, ...]]:
    """What the cluster was asked."""
    hidden = {"host"}
    return [
        (each.method, each.target, {name: line for name, line in each.headers.items() if name not in hidden}, each.body)
        for each in cluster.requests
    ]


def told(outcomes: Sequence[Outcome]) -> list[tuple[object, ...]]:
    """What the edge says of its exchanges."""
    return [
        (
            *(_VARIES.sub(rb"\1own", b"\r\nX-Request-Id: " + each.request_id.encode()), each.caller, each.method),
            *(each.route, each.status, each.result, each.sent_bytes, each.whole, each.cluster, each.error),
            *(each.first_audios, each.trace, each.first_byte_ms, each.total_ms),
            None if each.result is Result.HIT_MEMORY else each.worth,
        )
        for each in sorted(outcomes, key=lambda each: each.result.value)
    ]


@pytest.mark.parametrize("talk", TALKS.values(), ids=TALKS)
async def test_a_client_can_not_tell_which_lane_a_miss_took(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, _ = await had(talk, monkeypatch, fast=False)
    fast, taken = await had(talk, monkeypatch, fast=True)
    if not talk.logged_alike:  # aiohttp keeps who is gone until it would have been answered
        assert [each[9] for each in fast.told] == ["client_gone"]
        slow = replace(slow, told=fast.told)
    assert fast == slow
    assert taken == talk.taken
