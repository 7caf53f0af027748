"""One WebSocket session: texts in, speech out, in order, until one side leaves.

Keeps rules 3, 4 and 7. One task reads what the client says, another speaks; what is cancelled is stopped before that is
acknowledged, so no byte of it follows. What a client may ask for at once, how fast, how large and for how long is bounded,
and one that reads nothing is dropped. All speech comes from `Edge.speak`, and belongs to the node: who leaves stops
nothing that others hear. It does not know how a connection became a WebSocket.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import assert_never

from aiohttp import WSCloseCode, WSMsgType, web

from edgecache.cache.lookup import Directives
from edgecache.delivery.auth import Caller
from edgecache.delivery.exchange import Exchange
from edgecache.delivery.longtext import by_sentence
from edgecache.delivery.talk import Cancel, Flush, Id, Message, Setup, Speak, Text, Tongue, Unreadable, read, tongue
from edgecache.delivery.turn import LongTurn, Means, Turn
from edgecache.errors import ClientError, NodeError, SpeechError
from edgecache.fill.edge import Wish
from edgecache.fill.telling import About, Piece, Sentence
from edgecache.speech.joining import may_be_joined, not_joinable
from edgecache.speech.utterance import Utterance

#: Of the texts that wait, so many are asked for before their turn.
AHEAD = 2
#: A close that is not answered within this is the end all the same.
CLOSE_S = 5.0


@dataclass(frozen=True, slots=True)
class Guest:
    """Who is at the other end. caller: who that is now; ClientError: nobody any more. wish: for what is theirs."""

    exchange: Exchange
    protocol: str
    caller: Callable[[], Caller]
    wish: Callable[[Utterance, Caller, Directives], Wish]


class Session:
    """One client's session. `run` is its whole life; `leave` asks it to end behind what is being said."""

    def __init__(self, means: Means, guest: Guest, socket: web.WebSocketResponse, *, no_store: bool) -> None:
        self._means, self._guest, self._socket = means, guest, socket
        self._setup = Setup({}, no_store)
        self._waiting: deque[Turn] = deque()
        self._turn: Turn | None = None
        #: The text that comes bit by bit; it is the last of those that wait, or the one being told.
        self._growing: LongTurn | None = None
        self._telling: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()
        self._leaving = ""
        self._allowance = 2 * means.settings.messages_per_second
        self._counted_s = means.clock.monotonic()

    def __repr__(self) -> str:
        return f"<Session {self._turn!r}, {len(self._waiting)} waiting{', leaving' if self._leaving else ''}>"

    def leave(self, why: str) -> None:
        """No new texts; what is being said is said to its end, what waits is refused."""
        self._leaving = self._leaving or why
        self._flush()
        self._asked.set()

    async def run(self) -> None:
        """Until the session is over. ConnectionError: the client is gone, or reads nothing."""
        settings = self._means.settings
        lasting = asyncio.get_running_loop().call_later(settings.lifetime_s, self.leave, "this session has lasted long")
        speaking = asyncio.create_task(self._speak_on(), name="session")
        try:
            await self._listen()
        finally:
            lasting.cancel()
            speaking.cancel()
            await asyncio.wait([speaking])
            self._drop_waiting()
        if not speaking.cancelled():
            speaking.result()

    # Listening.

    async def _listen(self) -> None:
        while True:
            message = await self._socket.receive()
            match message.type:
                case WSMsgType.TEXT | WSMsgType.BINARY if self._may_say_more():
                    await self._take(message.data)
                case WSMsgType.PING if self._may_say_more():
                    with self._guest.exchange.patience():
                        await self._socket.pong(message.data)
                case WSMsgType.PONG:
                    pass
                case WSMsgType.TEXT | WSMsgType.BINARY | WSMsgType.PING:
                    return await self._close(WSCloseCode.POLICY_VIOLATION, "too many messages")
                case _:
                    return None

    def _may_say_more(self) -> bool:
        """A bucket of two seconds' worth."""
        rate, now_s = self._means.settings.messages_per_second, self._means.clock.monotonic()
        self._allowance = min(2 * rate, self._allowance + (now_s - self._counted_s) * rate)
        self._counted_s = now_s
        self._allowance -= 1
        return self._allowance >= 0

    async def _take(self, message: Message) -> None:
        try:
            said = read(message, self._setup, self._longest)
            match said:
                case Speak():
                    self._flush()
                    self._queue(said)
                case Text():
                    self._grow(said)
                case Flush(id):
                    self._end_growing(id)
                case Cancel(id):
                    stopped = await self._stop(id)
                    await self._say(self._tongue(id).cancelled(stopped))
                case Setup():
                    self._setup = said
                case _ as never:
                    assert_never(never)
        except Unreadable as error:
            await self._say(self._tongue(error.id).error(error))

    def _queue(self, said: Speak) -> None:
        """Takes a text of its own; one that is long is spoken sentence by sentence."""
        with _of(said.id):
            means, asked = self._means, said.asked
            if by_sentence(asked, means.long_text, means.text_characters, http_1_1=True):
                turn = self._turn_of(LongTurn, said.id, asked.utterance, said.directives)
                assert isinstance(turn, LongTurn)
                turn.feed(asked.utterance.text)
                turn.flush()
            else:
                turn = self._turn_of(Turn, said.id, asked.utterance, said.directives)
            self._wait_for_turn(turn)

    def _grow(self, said: Text) -> None:
        """Takes more of a text; the first piece says how it is to be spoken."""
        with _of(said.id):
            growing = self._growing
            if growing is None or growing.flushed or said.id not in (None, growing.id):
                self._flush()
                if not may_be_joined(said.utterance.format):
                    raise not_joinable(f"format {said.utterance.format}")
                turn = self._turn_of(LongTurn, said.id, said.utterance, said.directives)
                assert isinstance(turn, LongTurn)
                turn.feed(said.text)
                self._growing = turn
                self._wait_for_turn(turn)
            else:
                growing.feed(said.text)

    def _end_growing(self, id: Id) -> None:
        with _of(id):
            growing = self._growing
            if growing is None or id not in (None, growing.id):
                raise ClientError(400, "nothing_to_flush", "There is no text under way that a flush could end.")
            self._flush()

    def _flush(self) -> None:
        """The text that came bit by bit is all there."""
        growing, self._growing = self._growing, None
        if growing is not None:
            growing.flush()

    def _turn_of(self, kind: type[Turn], id: Id, utterance: Utterance, directives: Directives) -> Turn:
        caller = self._guest.caller()
        if self._leaving:
            raise NodeError(503, "leaving", f"This session ends: {self._leaving}.", retry_after_s=1)
        if len(self._waiting) >= self._means.settings.waiting:
            raise ClientError(429, "too_many_waiting", "Too many texts wait in this session; wait for some to be said.")
        return kind(id, self._guest.wish(utterance, caller, directives), caller, self._means)

    def _wait_for_turn(self, turn: Turn) -> None:
        self._waiting.append(turn)
        self._look_ahead()
        self._asked.set()

    async def _stop(self, id: Id) -> int:
        """Stops what has this id, or everything; how many that were. Nothing of them is sent from here on."""
        stopping = [each for each in self._waiting if id is None or each.id == id]
        for each in stopping:
            self._waiting.remove(each)
            each.error = "cancelled"
            each.over()
        stopped, turn, telling = len(stopping), self._turn, self._telling
        if turn is not None and telling is not None and (id is None or turn.id == id):
            stopped, turn.error = stopped + 1, "cancelled"
            telling.cancel()
            await asyncio.wait([telling])
        if self._growing is not None and (id is None or self._growing.id == id):
            self._growing = None
        self._look_ahead()
        return stopped

    # Speaking.

    async def _speak_on(self) -> None:
        """One after the other, until it is time to leave."""
        code, why = WSCloseCode.INTERNAL_ERROR, "this edge failed"
        try:
            while not self._leaving:
                if not self._waiting:
                    self._asked.clear()
                    await self._asked.wait()
                    continue
                await self._tell_next()
            for each in self._drop_waiting():
                refusal = NodeError(503, "leaving", f"This session ends: {self._leaving}.", retry_after_s=1)
                await self._say(self._tongue(each.id).error(refusal))
            code, why = WSCloseCode.GOING_AWAY, self._leaving
        except asyncio.CancelledError:
            raise
        except BaseException:
            await self._close(code, why)
            raise
        await self._close(code, why)

    async def _tell_next(self) -> None:
        turn = self._turn = self._waiting.popleft()
        self._look_ahead()
        telling = self._telling = asyncio.create_task(self._tell(turn), name="telling")
        try:
            await asyncio.wait([telling])
        finally:
            telling.cancel()
            try:
                await asyncio.wait([telling])
            finally:  # a client that leaves now has been told, and is counted
                self._turn = self._telling = None
                turn.over()
        if not telling.cancelled():
            telling.result()

    async def _tell(self, turn: Turn) -> None:
        tongue = self._tongue(turn.id)
        try:
            async with aclosing(turn.events()) as events:
                async for event in events:
                    match event:
                        case Piece():
                            turn.hand(event)
                            for message in tongue.piece(event):
                                await self._send(message)
                                turn.sent(message)
                            turn.taken()
                        case Sentence():
                            await self._say(tongue.sentence(event))
                        case About():
                            await self._say(tongue.begin(event))
                        case _ as never:
                            assert_never(never)
        except SpeechError as error:
            turn.failed(error)
            await self._say(tongue.error(error))
        else:
            assert turn.telling is not None
            await self._say(tongue.end(turn.telling.about, turn.telling.end))
            turn.whole = True

    def _look_ahead(self) -> None:
        for turn, place in zip(self._waiting, range(AHEAD), strict=False):
            if place == 0 and self._turn is None:
                turn.fetch_now()
            else:
                turn.fetch()

    def _drop_waiting(self) -> list[Turn]:
        dropped = list(self._waiting)
        self._waiting.clear()
        for each in dropped:
            each.error = each.error or "left"
            each.over()
        return dropped

    # Sending.

    @property
    def _longest(self) -> int:
        return max(self._means.text_characters, self._means.long_text.max_characters)

    def _tongue(self, id: Id) -> Tongue:
        return tongue(self._guest.protocol, id)

    async def _say(self, messages: list[Message]) -> None:
        for message in messages:
            await self._send(message)

    async def _send(self, message: Message) -> None:
        with self._guest.exchange.patience():
            if isinstance(message, str):
                await self._socket.send_str(message)
            else:
                await self._socket.send_bytes(message)

    async def _close(self, code: WSCloseCode, why: str) -> None:
        with self._guest.exchange.patience():
            await self._socket.close(code=code, message=why.encode()[:120])


@contextmanager
def _of(id: Id) -> Iterator[None]:
    """Errors in here are said of this text."""
    try:
        yield
    except SpeechError as error:
        raise Unreadable.of(error, id) from error
