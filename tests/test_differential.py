"""Two edges, one with the fast lane and one without: a client can't tell them apart, whatever it sends and however.

Once with the recordings in memory, once with memory off and the recordings in a Redis that both ask.

Both have the same recordings, keys and clock, and are given the same segments in step. What comes back is compared byte
for byte, except dates and ids of the edge's own making; so are the fates of the connections, and what the edges say of
their exchanges in the access log. `tests.scripted_clients` has what is sent.

Nothing is waited for by time but what the edge itself does by time, which is made quick here. A hunt:
`EDGECACHE_TEST_SCRIPTS=5000 pytest --timeout=0 tests/test_differential.py`.
"""

import asyncio
import hashlib
import logging
import os
import re
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from edgecache.cache.key import Key
from edgecache.cache.status import Outcome
from edgecache.clusters.cluster import Probing
from edgecache.delivery import connection, fastlane, head
from edgecache.delivery.auth import Auth, Keyring
from edgecache.delivery.fastlane import Lane
from edgecache.delivery.limits import FastLane, RequestLimits
from edgecache.delivery.sheets import Sheet
from edgecache.demo.origin import Origin
from edgecache.node import Node
from edgecache.ops import log
from edgecache.ops.log import Logging
from tests.conftest import LOOP, LOOPS
from tests.fake_clock import FakeClock
from tests.houses import cluster, keys_file, settings, with_redis
from tests.redis_houses import written
from tests.redis_server import RedisServer
from tests.scripted_clients import ANN, BOB, HI, LARGE, Play, Script, scripts

pytestmark = pytest.mark.net

#: So many scripts are played.
SCRIPTS = int(os.environ.get("EDGECACHE_TEST_SCRIPTS") or "100")
#: The edge's own waits while these tests run, and what is longer than both.
HOLD_S, BEGIN_S, LATE_S = 0.004, 0.008, 0.012
#: So many turns of the loop without a byte mean that nothing more comes by itself.
QUIET_TURNS = 12
#: How long two edges that differ are given to become the same, since something last came.
PATIENCE_S = 2.0
#: How long they are given to let go of a client that is gone.
GONE_S = 20.0
#: Where time is waited for, two edges in one busy process may differ once; lanes that differ do so each time.
TRIES = 3
#: Less than the large recording has, so that it does not go out in one write.
BUFFER_BYTES = 32 << 10
#: When the recordings were made, and when each script begins.
ANNS_S, BOBS_S, NOW_S = 1000.0, 1300.4, 5000.25
STEPS_S = {"0.3 s": 0.3, "0.8 s": 0.8, "an hour": 3600.0}

_DATE = re.compile(rb"\r\nDate: [A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT\r\n")
_OWN_ID = re.compile(rb"(X-Request-Id: |urn:edgecache:request:)[0-9a-f]{8}-\d+")
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


@dataclass
class Line:
    """A client's end of a connection: what came, and what became of it."""

    socket: socket.socket
    got: bytearray = field(default_factory=bytearray)
    fate: str = "open"

    @classmethod
    def to(cls, port: int) -> "Line":
        made = socket.create_connection(("127.0.0.1", port))
        made.setblocking(False)
        return cls(made)

    def send(self, segment: bytes) -> None:
        """Edges that have closed are told nothing more; `pump` sees how they closed."""
        try:
            assert self.socket.send(segment) == len(segment)
        except ConnectionError:
            self.fate = self.fate if self.fate != "open" else "refuses"

    def pump(self) -> bool:
        """Takes what is there. False: nothing new."""
        before = len(self.got), self.fate
        try:
            while self.fate in ("open", "refuses"):
                came = self.socket.recv(1 << 20)
                self.got += came
                if not came:
                    self.fate = "closed"
        except BlockingIOError:
            pass
        except ConnectionResetError:
            self.fate = "reset"
        return before != (len(self.got), self.fate)

    def end(self, how: str) -> None:
        if how == "reset":
            self.reset()
        elif how != "stay":
            with suppress(OSError):  # the edge was first
                self.socket.shutdown(socket.SHUT_WR if how == "half-close" else socket.SHUT_RDWR)

    def reset(self) -> None:
        """An edge can't take this for the half-close of somebody who still listens."""
        if self.socket.fileno() >= 0:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.socket.close()

    @property
    def heard(self) -> tuple[bytes, str]:
        """What a client hears, but for what differs with each answer."""
        said = _DATE.sub(rb"\r\nDate: then\r\n", _DATE.sub(rb"\r\nDate: then\r\n", bytes(self.got)))
        return _OWN_ID.sub(rb"\1own", said), self.fate


@dataclass
class Twin:
    """One of two edges that should be alike."""

    node: Node
    outcomes: list[Outcome]

    @property
    def lane(self) -> Lane | None:
        assert self.node._server is not None
        return self.node._server.lane

    @property
    def asks_redis(self) -> bool:
        """Whether it has no answer yet."""
        return self.node._redis is not None and self.node._redis._reads.asking > 0

    @property
    def told(self) -> list[tuple[object, ...]]:
        """What it says of its exchanges, but for times."""
        return [
            (
                *(_OWN_ID.sub(rb"\1own", b"X-Request-Id: " + each.request_id.encode()), each.caller, each.method),
                *(each.route, each.status, each.result, each.sent_bytes, each.whole, each.cluster, each.error),
            )
            for each in self.outcomes
        ]


@dataclass
class World:
    """Both edges, and what they share. ring: who may ask, at first."""

    slow: Twin
    fast: Twin
    clock: FakeClock
    origin: Origin
    ring: Keyring
    known: dict[bytes, bytes] = field(default_factory=dict)
    faults: list[Mapping[str, Any]] = field(default_factory=list)
    #: Answers of all kinds, those of the fast lane, of these the ones given in one step, and requests that it read.
    answers: int = 0
    fast_answers: int = 0
    answered_again: int = 0
    reads: int = 0

    @property
    def twins(self) -> tuple[Twin, Twin]:
        return self.slow, self.fast

    def anew(self) -> None:
        """As if nothing had been asked for before, so that a script always goes the same way."""
        lane = self.fast.lane
        assert lane is not None
        for memo in (lane._requests, lane._said):
            memo.young.clear()
            memo._old.clear()
            memo._young_bytes = memo._old_bytes = 0
        lane._noted.clear()
        self.clock.now = NOW_S
        self.happens("restored")

    def happens(self, what: str) -> None:
        """Between two plays."""
        self.clock.advance(STEPS_S.get(what, 0.0))
        if what in ("revoked", "restored") and not self.ring.open:
            left = {digest: each for digest, each in self.ring.callers.items() if each[1].name != "ann"}
            ring = Keyring(MappingProxyType(left)) if what == "revoked" else self.ring
            for twin in self.twins:
                twin.node.gate.ring = ring

    async def compare(self, script: Script) -> None:
        """Plays it. AssertionError: somebody could tell, each time: what does not come again is a busy machine's doing."""
        for left in reversed(range(TRIES)):
            try:
                return await self._compare(script)
            except (AssertionError, TimeoutError):
                if not left:
                    raise
        return None

    async def _compare(self, script: Script) -> None:
        self.anew()
        self.faults.clear()
        forwarded = self.origin.counters.requests
        for number, play in enumerate(script.plays):
            self.happens(play.before)
            await self._play(script, play, number)
        assert not self.faults
        assert self.origin.counters.requests == forwarded, "a script that goes forward proves nothing"

    async def _play(self, script: Script, play: Play, number: int) -> None:
        for twin in self.twins:
            twin.outcomes.clear()
        lines = slow, fast = Line.to(self.slow.node.port), Line.to(self.fast.node.port)
        try:
            await self._send(lines, script, play)
            if play.ending in ("close", "reset"):
                await turns(QUIET_TURNS)
                return
            await self._same(slow, fast, self._waits(script, play))
            where = f"play {number}"
            assert fast.heard == slow.heard, where
            assert self.fast.told == self.slow.told, where
            self.answers += len(_STATUS.findall(bytes(slow.got)))
        finally:
            for line in lines:
                line.reset()
            await self._gone()

    def _waits(self, script: Script, play: Play) -> bool:
        """Whether an edge may be waiting for time to pass when all was sent."""
        return play.ending == "half-close" or not script.plainly_framed

    async def _send(self, lines: tuple[Line, Line], script: Script, play: Play) -> None:
        for at, segment in enumerate(play.segments(script.requests(self.known))):
            if at == play.late:
                await asyncio.sleep(LATE_S)
            for line in lines:
                line.send(segment)
            if play.brisk is None or play.cut != "each" or not script.plainly_framed:
                await self.settle(*(lines if play.reads_at_once else ()))
            else:
                await turns(play.brisk)
        for line in lines:
            line.end(play.ending)

    async def settle(self, *lines: Line) -> None:
        """Until the edges have nothing more to say by themselves, nor Redis to them."""
        quiet = 0
        while quiet < QUIET_TURNS:
            await asyncio.sleep(0)
            moved = [line.pump() for line in lines]
            quiet = 0 if any(moved) or any(twin.asks_redis for twin in self.twins) else quiet + 1

    async def _same(self, slow: Line, fast: Line, waits: bool) -> None:
        """Returns when nothing more comes, or too late."""
        await self.settle(slow, fast)
        if waits:
            await asyncio.sleep(LATE_S)
            await self.settle(slow, fast)
        began_s = asyncio.get_running_loop().time()
        while fast.heard != slow.heard or self.fast.told != self.slow.told:
            if asyncio.get_running_loop().time() - began_s > PATIENCE_S:
                return
            before = len(slow.got), len(fast.got)
            await asyncio.sleep(LATE_S)
            await self.settle(slow, fast)
            if before != (len(slow.got), len(fast.got)):
                began_s = asyncio.get_running_loop().time()

    async def _gone(self) -> None:
        async with asyncio.timeout(GONE_S):
            while any(twin.node.status()["connections"] for twin in self.twins):
                await asyncio.sleep(0)


async def turns(number: int) -> None:
    """Lets the edges, which run in this loop, go on."""
    for _ in range(number):
        await asyncio.sleep(0)


# The two edges.


@asynccontextmanager
async def world(directory: Path, patch: pytest.MonkeyPatch, *, keys: bool, redis: str = "") -> AsyncIterator[World]:
    """Two edges with the same recordings: ann's of long ago, bob's of a little later. Without keys, they are anyone's.

    redis: where they are; empty: in memory.
    """
    patch.setattr(connection, "HOLD_S", HOLD_S)
    patch.setattr(connection, "BEGIN_S", BEGIN_S)
    patch.setattr(fastlane, "HOT_HITS", 0)  # the large one goes out without a copy
    patch.setattr(head, "_ids", head.Ids(thousands=10**6))  # of one length
    clock = FakeClock(ANNS_S)
    lines = [f"{name} sha256:{hashlib.sha256(key).hexdigest()}" for name, key in (("ann", ANN), ("bob", BOB))]
    auth = Auth(keys_file=str(keys_file(directory, *lines))) if keys else None
    async with AsyncExitStack() as stack:
        origin = await stack.enter_async_context(cluster())

        async def twin(*, fast: bool) -> Twin:
            outcomes: list[Outcome] = []
            patch.setattr(log, "access", outcomes.append)
            changed: dict[str, Any] = {
                "auth": auth,
                "fast_lane": FastLane(enabled=fast),
                "limits": RequestLimits(body_bytes=64 << 10, body_timeout_s=1.0),
                "log": Logging(access=True),
            }
            if redis:
                changed["cache"] = with_redis(redis, memory_bytes=0, lease="off")
            node = Node(settings(origin.url, probing=Probing(interval_s=3600.0, timeout_s=0.5), **changed), clock)
            stack.push_async_callback(node.close)
            await node.start()
            assert node._server is not None
            node._server.full.options["lingering_time"] = BEGIN_S
            for row in node._rows:
                for listening in row:
                    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
            return Twin(node, outcomes)

        slow, fast = await twin(fast=False), await twin(fast=True)
        made = World(slow, fast, clock, origin, slow.node.gate.ring)
        await record(made)
        count(made, patch)
        asyncio.get_running_loop().set_exception_handler(lambda _, context: made.faults.append(context))
        yield made


async def record(of: World) -> None:
    """One edge hears it from the cluster, the other has the same recordings."""
    slow, fast = (twin.node for twin in of.twins)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{slow.port}") as client:
        for api_key, made_s in ((ANN, ANNS_S), (BOB, BOBS_S)):
            of.clock.now = made_s
            for name, body in (("hi", HI), ("large", LARGE)):
                for _ in range(2):
                    async with client.post("/v1/tts", data=body, headers={"X-API-Key": api_key.decode()}) as answer:
                        assert answer.status == 200
                        await answer.read()
                where = answer.headers["Content-Location"].rpartition("/")[2]
                if slow._redis is not None:
                    await written(slow)
                else:
                    recording = slow._memory.look(Key(where), made_s)
                    assert recording is not None
                    fast._memory.put(recording, float("inf"), made_s)
                of.known.setdefault(name.encode() if api_key == ANN else b"bob", where.encode())
                etag = answer.headers["ETag"].strip('"').encode()
                of.known.setdefault(b"etag" if name == "hi" else b"large etag", etag)
    of.known[b"ann"] = of.known.pop(b"hi")


def count(of: World, patch: pytest.MonkeyPatch) -> None:
    """What the fast lane answers, and what it had to read for it."""
    lane = of.fast.lane
    assert lane is not None
    again, sent, parse = lane.again, lane.sent, lane._parse

    def counted_again(received: bytes) -> tuple[bytes, bytes, Sheet | None] | None:
        answer = again(received)
        of.fast_answers += answer is not None
        of.answered_again += answer is not None
        return answer

    def counted_sent(*args: Any) -> None:
        of.fast_answers += 1
        sent(*args)

    def counted_parse(*args: Any) -> Any:
        of.reads += 1
        return parse(*args)

    patch.setattr(lane, "again", counted_again)
    patch.setattr(lane, "sent", counted_sent)
    patch.setattr(lane, "_parse", counted_parse)
    assert of.fast.node._server is not None
    redis = of.fast.node._server.redis
    assert redis is not None
    lend = redis.lend

    def counted_lend(*args: Any) -> bool:
        lent = lend(*args)
        of.fast_answers += lent
        of.answered_again += lent
        return lent

    patch.setattr(redis, "lend", counted_lend)


# The tests.


KEYS = pytest.mark.parametrize("keys", [True, False], ids=["keys", "open"])


@KEYS
def test_a_client_can_not_tell_the_lanes_apart(
    keys: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compared(world(tmp_path, monkeypatch, keys=keys))
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


@KEYS
@pytest.mark.redis
def test_a_client_can_not_tell_the_lanes_apart_when_hits_come_out_of_redis(
    keys: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    redis_server: RedisServer,
) -> None:
    compared(world(tmp_path, monkeypatch, keys=keys, redis=redis_server.url))
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


def compared(of: AbstractAsyncContextManager[World]) -> None:
    """With as many scripts as are wanted."""
    with asyncio.Runner(debug=LOOP == "debug", loop_factory=LOOPS[LOOP]) as runner:
        stack = AsyncExitStack()
        made = runner.run(stack.enter_async_context(of))
        try:

            @hypothesis_settings(max_examples=SCRIPTS, deadline=None)
            @given(scripts())
            def compare(script: Script) -> None:
                runner.run(made.compare(script))

            compare()
            assert made.fast_answers > 0.05 * made.answers, "the fast lane answers too little of this to be compared"
            assert made.answered_again > 0
        finally:
            runner.run(stack.aclose())
