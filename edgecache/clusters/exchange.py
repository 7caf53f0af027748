"""One exchange with whom was chosen, and what is noted of it: begun at once where that needs no waiting.

Keeps: an UpstreamFault out of the block, whoever raises it, is recorded; a clean end is a success; anything else says
nothing about the upstream. It does not know how requests are written, nor what is heard.

Theory. The first byte of a miss comes as much sooner as the cluster is asked sooner. So a request goes out where it was
decided, in the same turn of the event loop, if a warm line is there; and the answer's first bytes are handed over in the
turn in which they come. The task that carries the exchange out begins beside that, and sees to all else.
"""

from asyncio import CancelledError
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Protocol

from edgecache.clock import Clock
from edgecache.clusters.fault import UpstreamFault
from edgecache.clusters.health import Event, Outcome, Ticket
from edgecache.clusters.member import Member
from edgecache.clusters.selection import Chosen
from edgecache.clusters.upstream import Answer, Asking, Hear
from edgecache.speech.utterance import Utterance


class Books(Protocol):
    """Who gives leave to ask, and is told what came of it."""

    @property
    def clock(self) -> Clock: ...
    def admitted(self, chosen: Chosen) -> tuple[Member, Ticket]: ...
    def line(self, member: Member, utterance: Utterance, forwarding: Mapping[str, str]) -> Asking: ...
    def over(self, member: Member, ticket: Ticket, came_of_it: UpstreamFault | Outcome) -> None: ...


class Exchange(AbstractAsyncContextManager[Answer]):
    """To be entered; it may be begun before, and then abandoned."""

    __slots__ = ("_began_s", "_books", "_chosen", "_failure", "_forwarding", "_leave", "_line", "_said_s", "_utterance")

    def __init__(self, books: Books, chosen: Chosen, utterance: Utterance, forwarding: Mapping[str, str]) -> None:
        self._books = books
        self._chosen = chosen
        self._utterance = utterance
        self._forwarding = forwarding
        self._leave: tuple[Member, Ticket] | None = None
        self._line: Asking | None = None
        #: What went wrong with beginning, for whoever enters.
        self._failure: Exception | None = None
        #: When it was asked, and when its answer's head was whole.
        self._began_s = self._said_s = 0.0

    def __repr__(self) -> str:
        return f"<Exchange with {self._chosen.upstream}>"

    def begin(self, hear: Hear | None = None) -> None:
        """Asks now, if a warm line is there; if not, entering does. hear: given the answer as soon as its head is whole;
        what it gives is handed the body from then on."""
        try:
            self._leave = leave = self._books.admitted(self._chosen)
            self._line = line = self._books.line(leave[0], self._utterance, self._forwarding)
            self._began_s = self._books.clock.monotonic()
            line.begin(None if hear is None else lambda answer: self._answered(answer, hear))
        except Exception as error:  # for whoever enters, who counts it
            self._failure = error

    def _answered(self, answer: Answer, hear: Hear) -> Callable[[bytes], None]:
        self._said_s = self._books.clock.monotonic()
        return hear(answer)

    async def __aenter__(self) -> Answer:
        if self._leave is None and self._failure is None:
            self.begin()
        try:
            if self._failure is not None:
                raise self._failure
            assert self._line is not None
            answer = await self._line.__aenter__()
        except BaseException as error:
            self._over(error)
            raise
        assert self._leave is not None
        now = self._books.clock.monotonic()
        self._leave[0].first_byte.observe(max(0.0, (self._said_s or now) - self._began_s), now)
        return answer

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over(error)

    def abandon(self) -> None:
        """It was begun, and is not entered."""
        self._over(self._failure or CancelledError())

    def _over(self, error: BaseException | None) -> None:
        if self._line is not None:
            self._line.give_back()
        if self._leave is None:
            return
        member, ticket = self._leave
        self._leave = None
        if isinstance(error, UpstreamFault):
            self._books.over(member, ticket, error)
        else:
            self._books.over(member, ticket, Event.SUCCEEDED if error is None else Event.ABANDONED)
