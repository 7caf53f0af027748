"""A pipeline without sockets and without waiting: a loop whose time jumps, and a Redis that does what its script says.

Everything happens at an exact time, so tests say when, and thousands of schedules are run in seconds.
"""

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVarTuple, cast

from redis.exceptions import ConnectionError as NotConnected

from edgecache.store.connections import Address, Refusal, Unanswered
from edgecache.store.pipeline import Answer, Pipeline, Question
from edgecache.store.replies import Unreadable
from tests.redis_server import bulk

MAX_VALUE_BYTES = 10_000
BUDGET_S = 0.020
REPLY_BYTES = 108
CONNECT_TIMEOUT_S = 0.5
_Ts = TypeVarTuple("_Ts")


class _Jumping(selectors.SelectSelector):
    """Nothing is waited for: time goes on by as much."""

    now_s = 100.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing will ever happen again"
            self.now_s += max(0.0, timeout)
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """Its time, also as a `Clock`. timers: how often one was set."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        self.timers = 0
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s

    monotonic = wall = time

    def stand_still(self, for_s: float) -> None:
        """As if something had kept the loop from going on."""
        self._jumping.now_s += for_s

    def call_later(
        self, delay: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        self.timers += 1
        return super().call_later(delay, callback, *args, context=context)


class Act(Enum):
    """What a peer may do besides sending some bytes of what it has to reply."""

    ALL = "sends all it has to reply"
    RESET = "resets the connection"
    END = "ends it"
    NOISE = "sends what is no reply"
    UNASKED = "sends a reply that nobody asked for, if it has answered everybody"
    HALF_UNASKED = "sends half of one"
    SILENCE = "sends nothing more"


@dataclass(frozen=True)
class Script:
    """One connection: how long connecting takes, whether it fails, and what is done after how long; then all is replied."""

    acts: Sequence[tuple[float, Act | int]] = ()
    connect_s: float = 0.001
    fails: bool = False


class Transport(asyncio.Transport):
    """One connection, as it goes on after redis-py. Asserts that nothing is written after the end."""

    def __init__(self, script: Script, reply: Callable[[str], bytes]) -> None:
        super().__init__()
        self._reply = reply
        self._unsent = bytearray()
        self._prompt = self._closing = self._aborted = False
        self._protocol: asyncio.BufferedProtocol | None = None
        self._playing = asyncio.get_running_loop().create_task(self._play(script))
        self.names: list[str] = []
        self.gone = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast("asyncio.BufferedProtocol", protocol)

    def pause_reading(self) -> None:
        """What comes is not read before the protocol is there anyhow."""

    resume_reading = pause_reading

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._aborted
        assert not self.gone
        if self._closing:
            return  # as real ones do when the other side has ended it and nobody was told yet
        asked = [name.decode() for name in bytes(data).split(b"\n") if name]
        self.names += asked
        self._unsent += b"".join(self._reply(name) for name in asked)
        if self._prompt:
            asyncio.get_running_loop().call_soon(self._do, Act.ALL)

    def is_closing(self) -> bool:
        return self._closing

    def abort(self) -> None:
        self._aborted = True
        self._lose(None)

    close = abort

    async def _play(self, script: Script) -> None:
        for after_s, act in script.acts:
            await asyncio.sleep(after_s)
            if act is Act.SILENCE:
                return
            self._do(act)
        self._prompt = True
        self._do(Act.ALL)

    def _do(self, act: Act | int) -> None:
        if self._closing or self._protocol is None:
            return
        match act:
            case Act.RESET:
                self._lose(ConnectionResetError())
            case Act.END:
                self._lose(None)
                self._protocol.eof_received()
            case Act.NOISE:
                self._receive(b"+noise\r\n")
            case Act.UNASKED if not self._unsent:
                self._receive(bulk(b"unasked"))
            case Act.HALF_UNASKED if not self._unsent:
                self._receive(bulk(b"unasked")[:9])
            case Act.ALL | int():
                sent = bytes(self._unsent[: len(self._unsent) if act is Act.ALL else act])
                del self._unsent[: len(sent)]
                if sent:
                    self._receive(sent)

    def _receive(self, sent: bytes) -> None:
        """As much at once as there is room for."""
        while sent and self._protocol is not None and not self._closing:
            room = cast("memoryview", self._protocol.get_buffer(-1))
            count = min(len(room), len(sent))
            room[:count] = sent[:count]
            self._protocol.buffer_updated(count)
            sent = sent[count:]

    def _lose(self, reason: Exception | None) -> None:
        if not self._closing:
            self._closing = True
            self._playing.cancel()
            asyncio.get_running_loop().call_soon(self._lost, reason)

    def _lost(self, reason: Exception | None) -> None:
        self.gone = True
        if self._protocol is not None:
            self._protocol.connection_lost(reason)


class Peer:
    """Redis: a script for each connection, and after those it does as Redis does. replies: those that are not values."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)
        self.replies: dict[str, bytes] = {}
        self.connections: list[Transport] = []
        self.connects = 0

    def connection(self) -> "_Connection":
        """As `Address` does."""
        return _Connection(self, self._scripts.pop(0) if self._scripts else Script())

    def reply(self, name: str) -> bytes:
        return self.replies.get(name, bulk(value(name)))


class _Connection:
    """What a pipeline needs of redis-py's connection."""

    def __init__(self, peer: Peer, script: Script) -> None:
        self._peer = peer
        self._script = script
        self._writer: asyncio.StreamWriter | None = None
        self._reader: asyncio.StreamReader | None = None

    async def connect(self) -> None:
        self._peer.connects += 1
        await asyncio.sleep(self._script.connect_s)
        if self._script.fails:
            raise NotConnected("refused")
        transport = Transport(self._script, self._peer.reply)
        self._peer.connections.append(transport)
        self._reader = asyncio.StreamReader()
        self._writer = asyncio.StreamWriter(transport, asyncio.Protocol(), self._reader, asyncio.get_running_loop())

    async def can_read(self) -> bool:
        return False

    async def disconnect(self, *, nowait: bool) -> None:
        assert nowait
        self._writer = self._reader = None


def value(name: str) -> bytes:
    """Says whose it is. As a reply, `REPLY_BYTES`."""
    return f"the value of {name}".encode().ljust(100, b"~")


@dataclass
class Asked:
    """A question and what became of it. ms: when it was told, after it was asked."""

    name: str
    at_s: float
    budget_s: float
    told: list[Answer] = field(default_factory=list)
    ms: float = -1.0

    @property
    def outcome(self) -> str:
        """In a word, and asserts that there is one."""
        [answer] = self.told
        match answer:
            case memoryview():
                return "its own" if bytes(answer) == value(self.name) else "ANOTHER'S"
            case Unanswered():
                return "late" if answer.timed_out else str(answer)
            case Unreadable():
                return answer.why
            case Refusal():
                return answer.code
        return "nothing"


class Rig:
    """A pipeline, its peer, and all that was asked."""

    def __init__(self, loop: JumpingLoop, *scripts: Script) -> None:
        self.loop = loop
        self.began_s = loop.time()
        self.peer = Peer(*scripts)
        self.pipeline = Pipeline(cast("Address", self.peer), CONNECT_TIMEOUT_S, loop, MAX_VALUE_BYTES)
        self.asked: list[Asked] = []

    def ask(self, name: str, budget_s: float = BUDGET_S) -> Asked:
        """Now."""
        asked = Asked(name, self.loop.time(), budget_s)
        self.asked.append(asked)

        def tell(answer: Answer) -> None:
            asked.told.append(memoryview(bytes(answer)) if isinstance(answer, memoryview) else answer)  # it is lent
            asked.ms = round((self.loop.time() - asked.at_s) * 1000, 3)

        self.pipeline.ask(Question(name.encode() + b"\n", asked.at_s + budget_s, tell))
        return asked

    async def at(self, ms: float) -> None:
        """Waits until so long after the beginning."""
        await asyncio.sleep(max(0.0, self.began_s + ms / 1000 - self.loop.time()))

    @property
    def outcomes(self) -> list[str]:
        return [asked.outcome for asked in self.asked]


Play = Callable[[Rig], Awaitable[None]]


def played(play: Play, *scripts: Script) -> Rig:
    """After the play everything is closed, everybody has been told once, and nothing is left."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        loop = cast("JumpingLoop", runner.get_loop())
        rig = Rig(loop, *scripts)

        async def whole() -> None:
            await play(rig)
            await rig.pipeline.close()
            assert repr(rig.pipeline) == "<Pipeline 0 asking, 0 connections>"
            assert all(connection.gone for connection in rig.peer.connections)
            await asyncio.sleep(0)
            assert all(len(asked.told) == 1 for asked in rig.asked)
            assert asyncio.all_tasks() == {asyncio.current_task()}

        runner.run(whole())
    return rig
