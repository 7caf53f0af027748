"""`edgecache say --stdin`: text is spoken while it is typed or piped, sentence by sentence, by the Python client.

Keeps the rule that sound is heard as it comes, and while more is typed. It does not know where sound goes.
"""

import asyncio
import codecs
import json
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from edgecache.client import Client, ClientFault, NoEdge
from edgecache.commands.terminal import Misused, Refused, Unreachable

READ_BYTES = 4096


@dataclass(slots=True)
class Typed:
    """What became of it. Times are from when the first character came."""

    characters: int = 0
    began_s: float | None = None
    first_audio_ms: float | None = None
    total_ms: float = 0.0
    size_bytes: int = 0
    saved_to: str = ""

    def line(self) -> str:
        """For people."""
        first = "no audio" if self.first_audio_ms is None else f"first audio {self.first_audio_ms:.1f} ms"
        return (
            f"{self.characters} characters   {first}   total {self.total_ms:.1f} ms   "
            f"{self.size_bytes / 1000:.1f} kB   -> {self.saved_to}"
        )

    def told(self) -> dict[str, object]:
        """For scripts."""
        names = ("characters", "first_audio_ms", "total_ms", "size_bytes", "saved_to")
        return {name: getattr(self, name) for name in names}

    def elapsed_ms(self) -> float:
        """Since the first character."""
        return 0.0 if self.began_s is None else round((time.perf_counter() - self.began_s) * 1000, 3)


async def _typed(told: Typed) -> AsyncIterator[str]:
    """What comes on stdin, as it comes. Misused: it is not UTF-8."""
    arrived: asyncio.Queue[bytes] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody hears any more
            while piece := os.read(sys.stdin.fileno(), READ_BYTES):
                loop.call_soon_threadsafe(arrived.put_nowait, piece)
            loop.call_soon_threadsafe(arrived.put_nowait, b"")

    # A thread that is not waited for: nothing else ends a read of a terminal when Ctrl-C is pressed.
    threading.Thread(target=read, daemon=True).start()
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while piece := await arrived.get():
            told.began_s = told.began_s or time.perf_counter()
            text = decoder.decode(piece)
            told.characters += len(text)
            yield text
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise Misused("what came on stdin is not UTF-8") from error


def say_typed(edges: Sequence[str], api_key: str | None, body: bytes, hear: Callable[[bytes], object]) -> Typed:
    """Speaks stdin to its end. body: the request's fields, whose text is not looked at."""
    fields = {name: field for name, field in json.loads(body).items() if name != "text"}
    told = Typed()
    try:
        asyncio.run(_speak(Client(edges, api_key), fields, told, hear))
    except NoEdge as error:
        raise Unreachable(str(error)) from error
    except ClientFault as error:
        raise Refused(str(error)) from error
    told.total_ms = told.elapsed_ms()
    return told


async def _speak(of: Client, fields: dict[str, Any], told: Typed, hear: Callable[[bytes], object]) -> None:
    async with of as client, aclosing(client.typed(_typed(told), **fields)) as sounds:
        async for sound in sounds:
            if told.first_audio_ms is None:
                told.first_audio_ms = told.elapsed_ms()
            told.size_bytes += len(sound)
            await asyncio.to_thread(hear, sound)
