"""Speech over HTTP in frames of its own: events or messages, one after the other, in a chunked body.

Keeps rule 3: a break is told as an event of the framing, behind everything that was heard; the body then ends, because
nothing more comes. A framing's own end is what says that the speech was whole. The connection goes on: its client was told
in the head that it does, and may ask the next thing at once.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import assert_never

from aiohttp import web

from edgecache.delivery.accept import Way
from edgecache.delivery.exchange import Exchange
from edgecache.delivery.framer import Framer
from edgecache.delivery.protobuf import Delimited
from edgecache.delivery.sse import ServerSentEvents
from edgecache.errors import SpeechError
from edgecache.fill.longtelling import LongTelling
from edgecache.fill.telling import About, Piece, Sentence, Telling

Event = About | Sentence | Piece


async def send_framed(exchange: Exchange, headers: Mapping[str, str], telling: Telling) -> web.StreamResponse:
    """Tells the speech as the exchange wants it, to its end or to where it breaks. ConnectionError: the client is gone."""
    framer = framer_of(exchange)
    async with aclosing(telling.events(framer.piece_bytes)) as events:
        return await send_events(exchange, headers, telling, events)


async def send_events(
    exchange: Exchange,
    headers: Mapping[str, str],
    telling: Telling | LongTelling,
    events: AsyncGenerator[Event, None],
) -> web.StreamResponse:
    """The same, with events that have begun perhaps."""
    framer = framer_of(exchange)
    headers = {**headers, "Content-Type": framer.media_type, "X-Accel-Buffering": "no", "Vary": "Accept"}
    async with exchange.stream(headers) as stream:
        held = framer.begin(telling.about)  # goes out with the first audio
        try:
            async for event in events:
                match event:
                    case Piece():
                        audio_s = (event.duration_ms or 0) / 1000
                        await stream.write(held + framer.piece(event), audio_s, telling.arrived_s)
                        held = b""
                    case Sentence():
                        held += framer.sentence(event)
                    case About():
                        pass  # it was told
                    case _ as never:
                        assert_never(never)
        except SpeechError as error:
            exchange.error, exchange.broken = error.code, True
            await stream.write(held + framer.error(error))
        else:
            await stream.write(held + framer.end(telling.about, telling.end))
    return stream.answer


def framer_of(exchange: Exchange) -> Framer:
    """How the exchange wants to be told."""
    return ServerSentEvents() if exchange.way is Way.EVENTS else Delimited()
