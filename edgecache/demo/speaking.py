"""How the demo cluster speaks: a voice's samples, cut, paced and put into the container that was asked for.

Keeps the rule that closing the last generator closes all before it, so that no process outlives its request. It does
not know HTTP, nor the knobs that spoil an answer on the wire.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from edgecache.demo import espeak
from edgecache.demo.asked import FORMATS, Asked
from edgecache.demo.encoder import encoded
from edgecache.demo.pcm import Resampler, seconds, wav_header
from edgecache.demo.tone import Tone, take_mark

TONE = "tone"
#: How much of the tone voice is made before others get a turn.
_TURN_BYTES = 64 << 10


def default_voice(chosen: str) -> str:
    """The voice that `auto` means on this machine."""
    return chosen if chosen != "auto" else "espeak-ng" if espeak.program() else TONE


def is_tone(asked: Asked) -> bool:
    """Whether the tone voice says this."""
    return asked.voice == TONE or (asked.voice == "default" and default_voice(asked.knobs.voice) == TONE)


def rate_hz(asked: Asked) -> int:
    """The sample rate of the answer."""
    return asked.sample_rate_hz or (24_000 if is_tone(asked) else espeak.RATE_HZ)


def media_type(asked: Asked) -> str:
    """What the answer says it is; raw samples do not say their rate themselves."""
    plain = FORMATS[asked.format]
    return f"{plain};rate={rate_hz(asked)}" if asked.format == "pcm" else plain


def tells_timings(asked: Asked) -> bool:
    """Whether this voice says when which word is heard."""
    return not is_tone(asked) and espeak.tells_timings()


async def body(asked: Asked, take: int | None, timings: bytearray) -> AsyncGenerator[bytes, None]:
    """The answer's body, a chunk at a time, as it is made; then `timings` is filled, where the voice tells them."""
    tone = Tone(asked.fields, size_bytes=asked.knobs.bytes, take=take) if is_tone(asked) else None
    samples = _tone_samples(tone) if tone else _espeak_samples(asked, take, timings)
    chunks = _paced(_chunked(samples, asked.knobs.chunk_bytes), rate_hz(asked), asked.knobs.rtf)
    if asked.format not in ("wav", "pcm"):
        chunks = encoded(chunks, asked.format, rate_hz(asked))
    if asked.knobs.at_once:
        chunks = _at_once(chunks)
    head = b""
    if asked.format == "wav":
        head = tone.header if tone else wav_header(rate_hz(asked), None)
    async with aclosing(chunks):
        async for chunk in chunks:
            yield head + chunk
            head = b""
        if head:
            yield head


async def _at_once(chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(chunks):
        made = [chunk async for chunk in chunks]
    for chunk in made:
        yield chunk


async def _tone_samples(tone: Tone) -> AsyncGenerator[bytes, None]:
    turn_bytes = 0
    for grain in tone.grains():
        yield grain
        turn_bytes += len(grain)
        if turn_bytes >= _TURN_BYTES:
            turn_bytes = 0
            await asyncio.sleep(0)


async def _espeak_samples(asked: Asked, take: int | None, timings: bytearray) -> AsyncGenerator[bytes, None]:
    resampler = Resampler(espeak.RATE_HZ, rate_hz(asked))
    mark = take_mark(take)
    pieces = espeak.speak(asked, timings)
    async with aclosing(pieces):
        async for piece in pieces:
            yield mark + resampler.feed(piece)
            mark = b""


async def _chunked(pieces: AsyncGenerator[bytes, None], size_bytes: int) -> AsyncGenerator[bytes, None]:
    """The same bytes in chunks of one size; the last may be shorter."""
    held = bytearray()
    async with aclosing(pieces):
        async for piece in pieces:
            held += piece
            whole = len(held) - len(held) % size_bytes
            for start in range(0, whole, size_bytes):
                yield bytes(held[start : start + size_bytes])
            del held[:whole]
    if held:
        yield bytes(held)


async def _paced(chunks: AsyncGenerator[bytes, None], rate: int, rtf: float) -> AsyncGenerator[bytes, None]:
    """The same chunks, none before it would be ready if making a second of audio took `rtf` seconds."""
    loop = asyncio.get_running_loop()
    start_s, made_bytes = loop.time(), 0
    async with aclosing(chunks):
        async for chunk in chunks:
            made_bytes += len(chunk)
            early_s = start_s + rtf * seconds(made_bytes, rate) - loop.time()
            if rtf and early_s > 0:
                await asyncio.sleep(early_s)
            yield chunk
