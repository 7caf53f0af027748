"""One connection to Redis with many questions on it: each is sent as it is asked, and replies come in the same order.

Keeps rules 6 and 7. A question is never cancelled: its reply is read in its turn, whether or not anybody still waits for
it. Time is kept for all questions of a connection together. When one is not answered in time it is told so, and its
connection is *retired*: it takes no more questions, those on it have the rest of their own time, and it is dropped with the
last. So nobody ever gets another's reply, and those who asked later don't pay for what came too late.

Nothing is retried, with one exception: when a connection ends that has replied before, as an idle one may have been closed
unnoticed, whoever waits on it is asked once more on a new one, within the same time.

redis-py opens the connection (see `connections`); from then on its bytes are ours. It does not know what is asked.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from enum import Enum
from os import write

from edgecache.clock import Clock
from edgecache.store.connections import LATE_S, MOMENT_S, Address, Unanswered, Wire
from edgecache.store.replies import Replies, Reply, Unreadable

#: More can't be answered within any budget worth having; it is refused at once.
MAX_QUESTIONS = 4096
#: How long `close` waits for dropped connections to be gone.
CLOSE_TIMEOUT_S = 1.0
#: Timers of event loops are no finer.
GRAIN_S = 0.001

OUT_OF_TURN = "a reply that nobody asked for"

Answer = Reply | Unanswered
Tell = Callable[[Answer], None]


class Question:
    """What is asked, until when, and whom to tell. over: that was told; its reply may still be on its way."""

    __slots__ = ("asked_again", "command", "deadline_s", "over", "tell")

    def __init__(self, command: bytes, deadline_s: float, tell: Tell) -> None:
        self.command = command
        self.deadline_s = deadline_s
        self.tell = tell
        self.asked_again = self.over = False

    def answer(self, answer: Answer) -> None:
        """Tells who asked, once. A value is lent: it is gone when who is told returns."""
        if not self.over:
            self.over = True
            self.tell(answer)


class Queue:
    """Questions in the order they were asked, and one timer for all of them."""

    __slots__ = ("_clock", "_forgiven_s", "_on_late", "_timer", "_why", "questions", "wakes_s")

    def __init__(self, clock: Clock, why: str, on_late: Callable[[], None]) -> None:
        """on_late: called after some were told that their time is over, and why it is."""
        self._clock = clock
        self._why = why
        self._on_late = on_late
        self._timer: asyncio.TimerHandle | None = None
        self.wakes_s = math.inf
        #: Set: we were late ourselves, and whose time was over by then has a moment to be answered.
        self._forgiven_s: float | None = None
        self.questions: deque[Question] = deque()

    def __repr__(self) -> str:
        return f"<Queue of {len(self.questions)}, {len(self.open)} open>"

    @property
    def open(self) -> list[Question]:
        """Those that have not been told."""
        return [question for question in self.questions if not question.over]

    def add(self, question: Question) -> None:
        """The last in the queue."""
        self.questions.append(question)
        if question.deadline_s < self.wakes_s:
            self.wake(question.deadline_s)

    def take(self) -> list[Question]:
        """Those that have not been told, out of the queue."""
        self._rest()
        taken = self.open
        self.questions.clear()
        return taken

    def _rest(self) -> None:
        """Without a timer."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self.wakes_s, self._forgiven_s = None, math.inf, None

    def wake(self, at_s: float) -> None:
        """Looks whose time is over, then."""
        if self._timer is not None:
            self._timer.cancel()
        self.wakes_s = at_s
        in_s = max(0.0, at_s - self._clock.monotonic())
        self._timer = asyncio.get_running_loop().call_later(in_s, self._look)

    def _look(self) -> None:
        """Whose time is over?"""
        now_s, forgiven_s, self._forgiven_s = self._clock.monotonic(), self._forgiven_s, None
        if forgiven_s is None and now_s - self.wakes_s > LATE_S:
            self.wake(now_s + MOMENT_S)
            self._forgiven_s, self.wakes_s = now_s, -math.inf  # nothing cuts the moment short
            return
        over_s = now_s + GRAIN_S if forgiven_s is None else forgiven_s
        late = [question for question in self.open if question.deadline_s <= over_s]
        for question in late:
            question.answer(Unanswered(self._why, timed_out=True))
        self._rest()
        left = self.open
        if left:
            self.wake(min(question.deadline_s for question in left))
        if late:
            self._on_late()


class Stage(Enum):
    """How far a connection is. Retired: it takes no more questions. Ended: it is dropped."""

    OPEN = "open"
    RETIRED = "retired"
    ENDED = "ended"


class Line(asyncio.BufferedProtocol):
    """One connection, and who waits for a reply on it."""

    def __init__(self, pipeline: "Pipeline", clock: Clock, max_value_bytes: int) -> None:
        self._pipeline = pipeline
        self._replies = Replies(max_value_bytes)
        self._queue = Queue(clock, "no reply in time", self._late)
        self.pending = self._queue.questions
        self._writer: asyncio.StreamWriter | None = None
        #: Where it is written; -1: only the transport may (TLS).
        self._fd = -1
        #: What is written together, at the end of this turn of the loop.
        self._unsent: list[bytes] = []
        self._call_soon = asyncio.get_running_loop().call_soon
        self._proven = False
        self.stage = Stage.OPEN
        self.lost = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<Line {self.stage.value}, {self._queue!r}>"

    def begin(self, writer: asyncio.StreamWriter) -> None:
        """Over this writer's transport; the writer is kept, as it closes its transport when it goes."""
        self._writer = writer
        if writer.get_extra_info("sslcontext") is None and writer.get_extra_info("socket") is not None:
            self._fd = writer.get_extra_info("socket").fileno()

    def send(self, question: Question) -> None:
        """One more question; it is written with all others of this turn of the loop."""
        queue, unsent = self._queue, self._unsent
        queue.questions.append(question)  # as `Queue.add`
        if question.deadline_s < queue.wakes_s:
            queue.wake(question.deadline_s)
        if not unsent:
            self._call_soon(self._flush)
        unsent.append(question.command)

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._writer is None or self.stage is Stage.ENDED:
            return
        transport, commands, written = self._writer.transport, b"".join(unsent), 0
        if self._fd >= 0 and not transport.is_closing() and not transport.get_write_buffer_size():
            try:
                written = write(self._fd, commands)
            except OSError:  # full, or gone: the transport sees the same, and deals with it
                written = 0
        if written < len(commands):
            transport.write(commands[written:])

    def end(self, why: str) -> None:
        """Drops the connection. Who waits on it is asked once more if it was ever good, or told that there is no reply."""
        if self.stage is Stage.ENDED:
            return
        self.stage = Stage.ENDED
        self._pipeline.without(self)
        if self._writer is not None:
            self._writer.transport.abort()
        for question in self._queue.take():
            if self._proven and not question.asked_again:
                question.asked_again = True
                self._pipeline.ask(question)
            else:
                question.answer(Unanswered(f"connection lost: {why}"))

    # What asyncio calls.

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where what comes next is received."""
        return self._replies.room()

    def buffer_updated(self, nbytes: int) -> None:
        """Each reply to its question; a reply without one ends the connection, for it could be taken for the next one's."""
        pending, odd = self.pending, ""
        asked = len(pending)  # who is told may ask anew, and none of these is an answer to that
        for reply in self._replies.received(nbytes):
            if not asked:
                odd = OUT_OF_TURN
                break
            asked -= 1
            pending.popleft().answer(reply)
            if isinstance(reply, Unreadable):
                odd = reply.why
                break
            self._proven = True
        else:
            if self._replies.begun and not asked:
                odd = OUT_OF_TURN
        if odd:
            self.end(odd)
        elif self.stage is Stage.RETIRED:
            self._end_if_done()

    def eof_received(self) -> None:
        """Without waiting until all that was written is taken."""
        self.end("closed by Redis")

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, whoever brought it about."""
        self.end("closed" if exc is None else type(exc).__name__)
        self._pipeline.lost(self)
        self.lost.set_result(None)

    # What comes too late.

    def _late(self) -> None:
        if self.stage is Stage.OPEN:
            self.stage = Stage.RETIRED
            self._pipeline.without(self)
        self._end_if_done()

    def _end_if_done(self) -> None:
        if not self._queue.open:
            self.end("too late")


class Pipeline:
    """The way to Redis: the connection that takes questions, those that no longer do, or the wait for one."""

    def __init__(self, address: Address, connect_timeout_s: float, clock: Clock, max_value_bytes: int) -> None:
        self._address = address
        self._connect_timeout_s = connect_timeout_s
        self._clock = clock
        self._max_value_bytes = max_value_bytes
        self._line: Line | None = None
        self._lines: set[Line] = set()
        self._waiting = Queue(clock, "no connection in time", self._forget_late)
        self._connecting: asyncio.Task[None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return (
            f"<Pipeline {self.asking} asking, {len(self._lines)} connections{', connecting' * bool(self._connecting)}>"
        )

    @property
    def asking(self) -> int:
        """Questions that have not been answered; those too late whose reply may still come are among them."""
        return sum(len(line.pending) for line in self._lines) + len(self._waiting.questions)

    def ask(self, question: Question) -> None:
        """Sends it at once, or as soon as there is a connection. It is answered in its time."""
        line = self._line
        if line is None:
            self._wait(question)
        elif len(line.pending) < MAX_QUESTIONS:
            line.send(question)
        else:
            _refuse(question, "too many questions")

    def without(self, line: Line) -> None:
        """This one takes no more questions."""
        if self._line is line:
            self._line = None

    def lost(self, line: Line) -> None:
        """This one is gone."""
        self._lines.discard(line)

    async def close(self) -> None:
        """Drops all connections; who still waits is told that there is no reply."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
            self._connecting = None
        self._tell_waiting(Unanswered("closed"))
        lines = list(self._lines)
        for line in lines:
            line.end("closed")
        if lines:
            await asyncio.wait([line.lost for line in lines], timeout=CLOSE_TIMEOUT_S)

    def _wait(self, question: Question) -> None:
        if self._closed:
            _refuse(question, "closed")
        elif len(self._waiting.questions) >= MAX_QUESTIONS:
            _refuse(question, "too many questions")
        else:
            self._waiting.add(question)
            if self._connecting is None:
                self._connecting = asyncio.create_task(self._connect(), name="connect to Redis")

    async def _connect(self) -> None:
        """Goes on when nobody waits any more: a connection that takes longer than the budget must come about too."""
        line, failure = Line(self, self._clock, self._max_value_bytes), None
        wire = Wire(self._address.connection())
        try:
            await wire.connect(self._connect_timeout_s)
            line.begin(await wire.hand_over(line))
        except Unanswered as error:
            failure = error
        finally:
            self._connecting = None
        if failure is not None or line.stage is Stage.ENDED:
            return self._tell_waiting(failure or Unanswered("connection lost as it opened"))
        self._lines.add(line)
        self._line = line
        for question in self._waiting.take():
            line.send(question)
        return None

    def _tell_waiting(self, failure: Unanswered) -> None:
        for question in self._waiting.take():
            question.answer(failure)

    def _forget_late(self) -> None:
        """Nothing was sent for them, so nothing will come."""
        for question in self._waiting.take():
            self._waiting.add(question)


def _refuse(question: Question, why: str) -> None:
    """Nobody is told before he has asked."""
    asyncio.get_running_loop().call_soon(question.answer, Unanswered(why))
