"""Clusters without sockets or time: the n-th asking is answered by the n-th script, to the letter.

`ScriptedClusters(Reply([b"RIFF…", barrier, b"…"]), …)`. Steps of a reply: bytes are heard; a `Barrier` is waited at; an
error is raised; a function is called; None lets other tasks run once. Fakes police their callers: an answer is read once,
inside its block, and every block and body is left.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from edgecache.clusters.fleet import ANYONE
from edgecache.clusters.routing import Whose
from edgecache.clusters.selection import Chosen, NoneLeft, Why
from edgecache.speech.utterance import Utterance
from tests import sounds

WAV = sounds.WAV
#: A WAV that says it is longer than it is.
CUT_WAV = WAV[:-1000]
#: Audible from their first bytes on, and taken as they are.
AAC = "audio/aac"


class Barrier:
    """A place in a script: `reached()` waits until it is come to, and `open()` lets it go on."""

    def __init__(self) -> None:
        self._reached, self._opened = asyncio.Event(), asyncio.Event()

    async def reached(self) -> None:
        await self._reached.wait()

    def open(self) -> None:
        self._opened.set()

    async def passed(self) -> None:
        self._reached.set()
        await self._opened.wait()


Step = bytes | Barrier | BaseException | Callable[[], object] | None


@dataclass
class Reply:
    """What an asking comes to. before: steps until there is a head; an error there is one that has no body."""

    steps: Sequence[Step] = (WAV,)
    media_type: str = "audio/wav"
    framed: bool = True
    before: Sequence[Step] = ()
    more: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


async def play(step: Step) -> None:
    match step:
        case Barrier():
            await step.passed()
        case BaseException():
            raise step
        case None:
            await asyncio.sleep(0)
        case _ if callable(step):
            step()


class ScriptedAnswer:
    """A status 200, for as long as its block lasts."""

    def __init__(self, reply: Reply) -> None:
        self.media_type = reply.media_type
        self.framed = reply.framed
        self.headers = reply.headers
        self._more = reply.more
        self._steps = reply.steps
        self.open = True
        self.reading = False
        self.read = False

    async def pour(self, take: Callable[[bytes], None]) -> None:
        assert self.open, "read after its block"
        assert not self.read, "read twice"
        self.read = self.reading = True
        try:
            for step in self._steps:
                if isinstance(step, bytes):
                    take(step)
                    await asyncio.sleep(0)
                else:
                    await play(step)
                assert self.open, "read after its block"
        finally:
            self.reading = False

    async def more(self) -> bytes:
        assert self.open, "asked after its block"
        assert self.read, "asked before its audio"
        assert not self.reading, "asked in the midst of its audio"
        return self._more


@dataclass
class Asking:
    """Who was asked, for what."""

    upstream: str
    text: str
    forwarding: Mapping[str, str]


@dataclass
class ScriptedClusters:
    """Upstreams c0, c1, …; each is up, and is asked at most once for one fill."""

    replies: Sequence[Reply] = (Reply(),)
    upstreams: int = 3
    none_left: NoneLeft = field(default_factory=lambda: NoneLeft(1.0, busy=False))
    asked: list[Asking] = field(default_factory=list)
    open: int = 0
    #: Who was heard, how soon, and at what real-time factor.
    heard_of: list[tuple[str, float, float | None]] = field(default_factory=list)
    #: When each is late.
    late: dict[str, float] = field(default_factory=dict)
    tell_of_room: Callable[[], None] = lambda: None

    def heard(self, chosen: Chosen, first_audio_s: float, real_time_factor: float | None) -> None:
        self.heard_of.append((chosen.upstream, first_audio_s, real_time_factor))

    def late_s(self, upstream: str) -> float | None:
        return self.late.get(upstream)

    def on_room(self, told: Callable[[], None]) -> None:
        self.tell_of_room = told

    def choose(self, tried: Collection[str], whose: Whose = ANYONE) -> Chosen | NoneLeft:
        left = [f"c{n}" for n in range(self.upstreams) if f"c{n}" not in tried]
        return Chosen(left[0], left[0], Why.NEAREST, keep_to=left[0]) if left else self.none_left

    def reply_to(self, asking: Asking) -> Reply:
        """The n-th for the n-th, and the last from then on."""
        return self.replies[min(len(self.asked), len(self.replies)) - 1]

    def ask(self, chosen: Chosen, utterance: Utterance, forwarding: Mapping[str, str]) -> "ScriptedExchange":
        return ScriptedExchange(self, Asking(chosen.upstream, utterance.text, forwarding))

    def begun(self, asking: Asking) -> Reply:
        self.asked.append(asking)
        self.open += 1
        return self.reply_to(asking)

    def ended(self) -> None:
        self.open -= 1


class ScriptedExchange(AbstractAsyncContextManager[ScriptedAnswer]):
    """Counts from when it is begun; its answer comes only to who enters."""

    def __init__(self, clusters: ScriptedClusters, asking: Asking) -> None:
        self._clusters = clusters
        self._asking = asking
        self._reply: Reply | None = None
        self._answer: ScriptedAnswer | None = None

    def begin(self, _: object = None) -> None:
        assert self._reply is None, "begun twice"
        self._reply = self._clusters.begun(self._asking)

    def abandon(self) -> None:
        assert self._answer is None, "entered, and abandoned"
        self._clusters.ended()

    async def __aenter__(self) -> ScriptedAnswer:
        assert self._answer is None, "entered twice"
        assert self._reply is not None, "entered and not begun"
        self._answer = answer = ScriptedAnswer(self._reply)
        try:
            for step in self._reply.before:
                await play(step)
        except BaseException:
            self._end()
            raise
        return answer

    async def __aexit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        assert self._answer is not None
        self._clusters.ended()
        self._answer.open = False
        assert not self._answer.reading, "its body was not closed"
