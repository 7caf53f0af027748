"""MP3, Ogg/Opus and FLAC for the demo cluster, by the program ffmpeg, while the samples are still being made.

Keeps the rule that the same samples give the same bytes. It does not know where samples come from.
"""

import asyncio
import shutil
from collections.abc import AsyncGenerator
from contextlib import aclosing

from edgecache.demo.child import Child
from edgecache.errors import ClientError, NodeError

#: By format: the codec, its options, and the container's.
_CODECS = {
    "mp3": ("-c:a", "libmp3lame", "-b:a", "48k", "-write_xing", "0", "-id3v2_version", "0", "-f", "mp3"),
    "opus": ("-c:a", "libopus", "-b:a", "32k", "-application", "voip", "-page_duration", "40000", "-f", "ogg"),
    "flac": ("-c:a", "flac", "-f", "flac"),
}
_QUIET = ("-hide_banner", "-nostdin", "-loglevel", "error")
#: Nothing is probed for (raw samples need none) and no packet waits for the next.
_STREAMING_IN = ("-fflags", "+nobuffer", "-probesize", "32", "-analyzeduration", "0")
_STREAMING_OUT = ("-map_metadata", "-1", "-fflags", "+bitexact", "-flags:a", "+bitexact", "-flush_packets", "1")


def installed() -> str | None:
    """Where ffmpeg is."""
    return shutil.which("ffmpeg")


async def encoded(pcm: AsyncGenerator[bytes, None], form: str, rate_hz: int) -> AsyncGenerator[bytes, None]:
    """These samples in this format, as ffmpeg gives them. ClientError: ffmpeg is not installed."""
    program = installed()
    async with aclosing(pcm):
        if program is None:
            message = f"format {form} needs ffmpeg, which is not installed here; wav and pcm need nothing"
            raise ClientError(422, "format_not_supported", message, param="format")
        raw = ("-f", "s16le", "-ar", str(rate_hz), "-ac", "1", "-i", "pipe:0")
        command = (program, *_QUIET, *_STREAMING_IN, *raw, *_CODECS[form][:-2], *_STREAMING_OUT, *_CODECS[form][-2:])
        async with Child.started((*command, "pipe:1")) as child:
            feeding = asyncio.create_task(_feed(child, pcm))
            try:
                while piece := await child.read():
                    yield piece
                await feeding  # tells of what went wrong with the samples, before ffmpeg tells of too few of them
                status, complaint = await child.ended()
            finally:
                await _stopped(feeding)
            if status != 0:
                raise NodeError(500, "encoding_failed", f"ffmpeg ended with status {status}: {complaint}")


async def _feed(child: Child, pcm: AsyncGenerator[bytes, None]) -> None:
    try:
        async for piece in pcm:
            await child.write(piece)
    finally:
        child.write_end()


async def _stopped(feeding: "asyncio.Task[None]") -> None:
    """Ends the task, so that nothing reads the samples when they are closed. What it raised was told or is moot."""
    feeding.cancel()
    await asyncio.wait([feeding])
    if not feeding.cancelled():
        feeding.exception()
