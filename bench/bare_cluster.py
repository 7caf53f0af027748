"""The cheapest cluster there can be: the same WAV for every request, at once. So that the edge is measured.

`PORT [BYTES [whole]]`: chunked, unless it is to be whole, with its length. `GET /asked` says how often it was asked for
speech; any other GET is `ok`.
"""

import asyncio
import struct
import sys
from typing import cast

import uvloop

#: With the WAV header: 32 KiB, 0.68 s of 24 kHz speech.
SIZE = 32 << 10


def wav(size: int = SIZE) -> bytes:
    """A WAV file of this many bytes, an even number."""
    samples = bytes(range(256)) * (size // 256 + 1)
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", size - 8, b"WAVE", b"fmt ", 16, 1, 1, 24000, 48000, 2, 16, b"data", size - 44
    )
    return head + samples[: size - 44]


def _chunked(body: bytes, chunk_bytes: int = 4096) -> bytes:
    pieces = [body[at : at + chunk_bytes] for at in range(0, len(body), chunk_bytes)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


class Cluster:
    """What it answers, and how often it was asked."""

    def __init__(self, size: int = SIZE, framing: str = "chunked") -> None:
        self.asked = 0
        whole = framing == "whole"
        framed = b"Content-Length: %d" % size if whole else b"Transfer-Encoding: chunked"
        self._speech = b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\n%s\r\n\r\n" % framed
        self._speech += wav(size) if whole else _chunked(wav(size))

    def answer(self, head: bytes) -> bytes:
        """The whole answer to a request with this head, in lower case."""
        if head.startswith(b"post"):
            self.asked += 1
            return self._speech
        told = b"%d" % self.asked if head.startswith(b"get /asked ") else b"ok"
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(told), told)


class Answering(asyncio.Protocol):
    """Answers each whole request."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
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
            self._transport.write(self._cluster.answer(head))
            self._got = self._got[end:]


async def _serve(port: int, cluster: Cluster) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Answering(cluster), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asked_size = int(sys.argv[2]) if len(sys.argv) > 2 else SIZE
    uvloop.run(_serve(int(sys.argv[1]), Cluster(asked_size, *sys.argv[3:])))
