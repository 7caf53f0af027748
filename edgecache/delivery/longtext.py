"""Long text over plain HTTP: one chunked body of joined sentences, from the first one's first byte.

Keeps rule 3: a text that can't be spoken to its end is broken off. Where its sentences lie is not told here: a raw body
has no place for it. It does not know clusters or tiers; `fill.longform` asks for the sentences.
"""

from contextlib import aclosing
from typing import TYPE_CHECKING

from aiohttp import web

from edgecache.cache.lookup import Freshness
from edgecache.delivery.accept import Way
from edgecache.delivery.exchange import Exchange
from edgecache.delivery.framed import Event, framer_of, send_events
from edgecache.delivery.head import cache_control, duration, forwarded, recorded
from edgecache.dialects.speeko import Request
from edgecache.errors import ClientError
from edgecache.fill.edge import Edge, Recorded, Speech, Wish
from edgecache.fill.longform import Began, LongForm, LongText, Sound, all_of, sentence_wish
from edgecache.fill.longtelling import LongTelling
from edgecache.fill.telling import Sentence as Announced
from edgecache.speech.joining import may_be_joined, not_joinable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from edgecache.speech.sentences import Sentence

#: Of a whole's headers, those that are true of a text of which this is the first sentence.
_TRUE_OF_ALL = ("Content-Type", "Cache-Status", "Server-Timing", "X-Accel-Buffering")


def by_sentence(asked: Request, settings: LongText, whole_characters: int, *, http_1_1: bool) -> bool:
    """Whether this is spoken sentence by sentence. ClientError: it is too long for either way, or can't be joined."""
    utterance, characters = asked.utterance, len(asked.utterance.text)
    wanted = asked.chunking == "sentence" or (asked.chunking is None and characters > settings.from_characters)
    joinable, short = may_be_joined(utterance.format), characters <= whole_characters
    if wanted and joinable and http_1_1 and characters <= settings.max_characters:
        return True
    if wanted and not joinable and (asked.chunking or not short):
        raise not_joinable(f"format {utterance.format}")
    if not short:
        longest = settings.max_characters if wanted and http_1_1 else whole_characters
        more = (
            f", or {settings.max_characters} without `chunking: none`" if asked.chunking == "none" and http_1_1 else ""
        )
        message = f"text has {characters} characters; this edge takes {longest}{more}."
        raise ClientError(413, "text_too_long", message, param="text")
    return False


def may_be_whole(asked: Request, whole_characters: int, error: ClientError) -> bool:
    """Whether a text that turned out not to be joinable may be asked for whole instead."""
    return error.code == "not_joinable" and asked.chunking is None and len(asked.utterance.text) <= whole_characters


class LongAnswer:
    """One long text being answered."""

    def __init__(self, exchange: Exchange, edge: Edge, wish: Wish, settings: LongText) -> None:
        self._exchange = exchange
        self._edge = edge
        self._wish = wish
        self._settings = settings
        self._form = LongForm(edge.speak, lambda sentence, now: sentence_wish(wish, sentence, now=now), settings.ahead)

    async def send(self, node: str, freshness: Freshness) -> web.StreamResponse:
        """All of it. SpeechError: before the first sound an answer, later the reason for breaking off."""
        exchange = self._exchange
        if self._wish.directives.only_if_cached:
            await self._all_cached()
        if exchange.way is not Way.RAW:
            return await self._send_framed(node, freshness)
        async with aclosing(self._form.pieces(self._sentences())) as pieces:
            first = await anext(pieces, None)
            if first is None:
                raise ClientError(400, "empty_text", "text has nothing in it to speak.", param="text")
            assert isinstance(first, Began)
            self._count(first)
            heard_ms = 0
            async with exchange.stream(self._head(first.speech, node, freshness)) as stream:
                async for piece in pieces:
                    if isinstance(piece, Sound):
                        audio_s, heard_ms = (self._form.duration_ms - heard_ms) / 1000, self._form.duration_ms
                        await stream.write(piece.audio, audio_s)
                    elif isinstance(piece, Began):
                        self._count(piece)
            return stream.answer

    async def _send_framed(self, node: str, freshness: Freshness) -> web.StreamResponse:
        """The same in events or messages, with each sentence announced."""
        telling = LongTelling(self._form, self._sentences(), self._wish.utterance)
        async with aclosing(telling.events(framer_of(self._exchange).piece_bytes)) as events:
            await anext(events)  # until then an error is plain HTTP
            headers = self._head(telling.began.speech, node, freshness)
            return await send_events(self._exchange, headers, telling, self._counted(telling, events))

    async def _counted(
        self, telling: LongTelling, events: "AsyncGenerator[Event, None]"
    ) -> "AsyncGenerator[Event, None]":
        async for event in events:
            if isinstance(event, Announced):
                self._count(telling.began)
            yield event

    def _sentences(self) -> "AsyncGenerator[Sentence, None]":
        utterance = self._wish.utterance
        return all_of(utterance.text, str(utterance.fields["language"]), self._settings.lengths)

    async def _all_cached(self) -> None:
        """NodeError 504: a sentence is not there."""
        async with aclosing(self._sentences()) as sentences:
            async for sentence in sentences:
                await self._edge.probe(sentence_wish(self._wish, sentence, now=True))

    def _head(self, first: Speech, node: str, freshness: Freshness) -> dict[str, str]:
        method, took = self._exchange.request.method, duration(self._exchange.elapsed_ms())
        if isinstance(first, Recorded):
            headers = recorded(node, first, method, took)
        else:
            headers = forwarded(node, first, method, took, freshness.ttl_s)
        return {"Cache-Control": cache_control(method)} | {
            name: headers[name] for name in _TRUE_OF_ALL if name in headers
        }

    def _count(self, began: Began) -> None:
        exchange = self._exchange
        exchange.account.add(began.speech, len(began.sentence.spoken))
        exchange.result, exchange.cluster = exchange.account.result, exchange.account.cluster
