"""The cheapest cluster there can be: the same WAV for every request, chunked, at once. So that the edge is measured."""

import asyncio
import struct
import sys
from typing import cast

import uvloop

#: With the WAV header: 32 KiB, 0.68 s of 24 kHz speech.
SIZE = 32 << 10


def wav(size: int = SIZE) -> bytes:
    """A WAV file of this many bytes."""
    samples = bytes(range(256)) * (size // 256 + 1)
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", size - 8, b"WAVE", b"fmt ", 16, 1, 1, 24000, 48000, 2, 16, b"data", size - 44
    )
    return head + samples[: size - 44]


def _chunked(body: bytes, chunk_bytes: int = 4096) -> bytes:
    pieces = [body[at : at + chunk_bytes] for at in range(0, len(body), chunk_bytes)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nTransfer-Encoding: chunked\r\n\r\n" + _chunked(wav())
HEALTHY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Answering(asyncio.Protocol):
    """Answers each whole request."""

    def __init__(self) -> None:
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._got += data
        while (at := self._got.find(b"\r\n\r\n")) >= 0:
            head = self._got[:at].lower()
            where = head.find(b"content-length:")
            length = int(head[where + 15 :].split(b"\r\n", 1)[0]) if where >= 0 else 0
            end = at + 4 + length
            if len(self._got) < end:
                return
            self._transport.write(ANSWER if head.startswith(b"post") else HEALTHY)
            self._got = self._got[end:]


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
