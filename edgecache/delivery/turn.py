"""One text of a session, from its asking to its last byte, and what it came to.

Keeps rules 4 and 7: what is asked for ahead is counted as held, and given up with the turn; a text that grows is bounded.
A turn is a whole utterance, or a text that is spoken sentence by sentence, whole or as it comes. It does not know how
it is told.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, aclosing
from dataclasses import dataclass

import msgspec

from edgecache.cache.status import Outcome, Result
from edgecache.cache.trace import BeginSpan
from edgecache.cache.trace import read as read_trace
from edgecache.clock import Clock
from edgecache.delivery.account import Account
from edgecache.delivery.auth import Caller
from edgecache.delivery.head import new_request_id
from edgecache.delivery.limits import WebSockets
from edgecache.delivery.listening import Audience, Listening
from edgecache.delivery.talk import Id, Message
from edgecache.errors import ClientError, NodeError, SpeechError
from edgecache.fill.edge import Edge, Live, Speech, Wish
from edgecache.fill.longform import LongForm, LongText, cut, sentence_wish
from edgecache.fill.longtelling import LongTelling
from edgecache.fill.priority import Priority
from edgecache.fill.telling import About, Piece, Telling
from edgecache.fill.telling import Sentence as Announced
from edgecache.speech.sentences import Sentence, Sentences


@dataclass(frozen=True, slots=True)
class Means:
    """What all sessions of this node share. report: is told of every turn."""

    edge: Edge
    settings: WebSockets
    text_characters: int
    long_text: LongText
    clock: Clock
    report: Callable[[Outcome], None]
    #: Begins a span within the session's; None: no spans are told.
    begin_span: BeginSpan | None = None
    #: Who is imagined to hear each stream; None: nobody.
    audience: Audience | None = None


class Turn:
    """One whole utterance."""

    def __init__(self, id: Id, wish: Wish, caller: Caller, means: Means) -> None:
        self.id: Id = id
        self._trace = None if means.begin_span is None else means.begin_span(read_trace(wish.forwarding))
        if self._trace is not None:
            wish = msgspec.structs.replace(wish, forwarding={**wish.forwarding, **self._trace.headers})
        self._wish, self._caller, self._means = wish, caller, means
        self._began_s = means.clock.monotonic()
        self._first_byte_s: float | None = None
        #: Asked for ahead, then once more as needed now, if it is not there by then.
        self._fetching: list[asyncio.Task[Speech]] = []
        self._ahead = False
        self._reading = ExitStack()
        self.telling: Telling | LongTelling | None = None
        self.sent_bytes = 0
        self._account = Account()
        self._listening: Listening | None = None
        self._failed = False
        self.status, self.error, self.whole = 0, "", False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id!r} {self.status or 'waiting'}, {self.sent_bytes} bytes>"

    def fetch(self) -> None:
        """Begins to ask for it, behind what others hear now."""
        if not self._fetching:
            self._ahead = not self._alone
            self._ask(Priority.LOOK_AHEAD if self._ahead else Priority.INTERACTIVE)

    def fetch_now(self) -> None:
        """Its turn has come. Asked for once more it joins the fill, which is then as urgent; or it may be begun now."""
        if not self._fetching or (self._ahead and not _succeeded(self._fetching[0])):
            self._ask(Priority.INTERACTIVE)
        self._ahead = False

    @property
    def _alone(self) -> bool:
        """Whether nobody may join its fill, not even itself."""
        return self._wish.directives.no_store or self._wish.directives.no_cache

    def _ask(self, priority: Priority) -> None:
        wish = msgspec.structs.replace(self._wish, priority=max(priority, self._wish.priority))
        self._fetching.append(asyncio.create_task(self._speak(wish), name="turn"))

    async def _speak(self, wish: Wish) -> Speech:
        speech = await self._means.edge.speak(wish)
        if isinstance(speech, Live):
            self._reading.enter_context(speech.flight.reading())  # held and counted from now on
        return speech

    async def events(self) -> AsyncGenerator[About | Announced | Piece, None]:
        """What is to be told. SpeechError: there is nothing, or no more."""
        self.fetch_now()
        speech = await self._fetched()
        telling = self.telling = Telling(speech, self._wish.utterance)
        self.learn(speech, len(self._wish.utterance.text))
        async with aclosing(telling.events(self._means.settings.frame_bytes)) as events:
            async for event in events:
                yield event

    async def _fetched(self) -> Speech:
        """What was found by the first asking that found anything. SpeechError: none did."""
        while True:
            await asyncio.wait(self._fetching, return_when=asyncio.FIRST_COMPLETED)
            for each in self._fetching:
                if each.done() and each.exception() is None:
                    return each.result()
            if all(each.done() for each in self._fetching):
                return self._fetching[-1].result()
            await asyncio.wait([each for each in self._fetching if not each.done()])

    def learn(self, speech: Speech, characters: int) -> None:
        """This is being told."""
        self.status = 200
        self._account.add(speech, characters)
        if self._listening is None and self._means.audience is not None:
            self._listening = self._means.audience.listening()

    def hand(self, piece: Piece) -> None:
        """Some of the audio is about to be sent."""
        if self._listening is not None and self.telling is not None:
            self._listening.hand((piece.duration_ms or 0) / 1000, self.telling.arrived_s)

    def taken(self) -> None:
        """It was."""
        if self._listening is not None:
            self._listening.taken()

    def sent(self, message: Message) -> None:
        """Some of it went out."""
        if self._first_byte_s is None:
            self._first_byte_s = self._means.clock.monotonic()
        self.sent_bytes += len(message)

    def failed(self, error: SpeechError) -> None:
        """It goes no further."""
        self.error, self.status = error.code, self.status or error.status
        self._failed = True

    def flush(self) -> None:
        """No more text comes."""

    def over(self) -> None:
        """It is told, or not wanted any more."""
        for each in self._fetching:
            each.add_done_callback(_heard)
            each.cancel()
        self._reading.close()
        now_s, account = self._means.clock.monotonic(), self._account
        self._means.report(
            Outcome(
                request_id=new_request_id(),
                caller=self._caller.name,
                method="WS",
                route="/ws/tts/stream",
                status=self.status or 499,
                result=Result.ERROR if self._failed and account.result is Result.NONE else account.result,
                sent_bytes=self.sent_bytes,
                first_byte_ms=((self._first_byte_s or now_s) - self._began_s) * 1000,
                total_ms=(now_s - self._began_s) * 1000,
                whole=self.whole,
                cluster=account.cluster,
                error=self.error,
                first_audios=account.first_audios,
                worth=account.worth if self.whole else None,
                played=None if self._listening is None else self._listening.played(),
                trace=self._trace,
            )
        )


def _succeeded(task: "asyncio.Task[Speech]") -> bool:
    """Whether it is there, or would be refused again: not for being asked ahead of its time, but for what it is."""
    if not task.done() or task.cancelled():
        return False
    return not isinstance(task.exception(), NodeError)


def _heard(task: "asyncio.Task[Speech]") -> None:
    if not task.cancelled():
        task.exception()  # whoever wanted to know was told


class LongTurn(Turn):
    """A text that is spoken sentence by sentence, each as soon as it can be cut. `feed` and `flush` bring the text."""

    def __init__(self, id: Id, wish: Wish, caller: Caller, means: Means) -> None:
        super().__init__(id, wish, caller, means)
        self._sentences = Sentences(str(wish.utterance.fields["language"]), means.long_text.lengths)
        self._fed = asyncio.Event()
        self._characters = 0
        self.flushed = False

    def feed(self, text: str) -> None:
        """More of the text. ClientError: it is too long."""
        longest = self._means.long_text.max_characters
        if self._characters + len(text) > longest:
            raise ClientError(
                413, "text_too_long", f"A text may have {longest} characters here; flush, and go on.", param="text"
            )
        self._characters += len(text)
        self._sentences.feed(text)
        self._fed.set()

    def flush(self) -> None:
        """No more text comes."""
        if not self.flushed:
            self.flushed = True
            self._sentences.flush()
            self._fed.set()

    def fetch(self) -> None:
        """Its sentences are asked for when its turn comes."""

    def fetch_now(self) -> None:
        """They are, by `events`."""

    async def events(self) -> AsyncGenerator[About | Announced | Piece, None]:
        """What is to be told. SpeechError: there is nothing, or no more."""
        wish, ahead = self._wish, self._means.long_text.ahead
        form = LongForm(self._means.edge.speak, lambda each, now: sentence_wish(wish, each, now=now), ahead)
        telling = self.telling = LongTelling(form, self._as_they_come(), wish.utterance)
        async with aclosing(telling.events(self._means.settings.frame_bytes)) as events:
            async for event in events:
                if isinstance(event, Announced):
                    self.learn(telling.began.speech, len(telling.began.sentence.spoken))
                yield event

    async def _as_they_come(self) -> AsyncGenerator[Sentence, None]:
        while True:
            ended = self.flushed
            self._fed.clear()
            async with aclosing(cut(self._sentences)) as found:
                async for sentence in found:
                    yield sentence
            if ended:
                return
            await self._fed.wait()
