"""A bare loop of `GET`s on one multiplexed connection with `hiredis.Reader`: what Redis can give to one core of Python.

`python -m bench.peers.redis_get SOCKET BYTES OUTSTANDING SECONDS` prints one line of JSON. No event is awaited for a
reply, nothing is looked at: each reply is let go, and another `GET` leaves in its place.
"""

import asyncio
import json
import sys
import time
from typing import cast

import hiredis
import redis
import uvloop

from bench.bare_cluster import wav

VALUES = 100
WARMUP_S = 0.2


class Getting(asyncio.Protocol):
    """One connection with so many commands under way."""

    def __init__(self, outstanding: int) -> None:
        self.replies = 0
        self._outstanding = outstanding
        self._reader = hiredis.Reader(notEnoughData=self)
        names = [b"bench:%03d" % n for n in range(VALUES)]
        self._commands = [b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(name), name) for name in names]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(b"".join(self._commands[n % VALUES] for n in range(self._outstanding)))

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        first = at = self.replies
        while self._reader.gets() is not self:
            at += 1
        if at > first:
            self.replies = at
            self._transport.write(b"".join([self._commands[n % VALUES] for n in range(first, at)]))


async def _loop(path: str, outstanding: int, seconds: float) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    transport, getting = await loop.create_unix_connection(lambda: Getting(outstanding), path)
    await asyncio.sleep(WARMUP_S)
    began, began_s, began_cpu_s = getting.replies, time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    gets, took_s, cpu_s = getting.replies - began, time.perf_counter() - began_s, time.process_time() - began_cpu_s
    transport.abort()
    return {"gets": gets, "seconds": took_s, "cpu_s": cpu_s}


def main(path: str, size: int, outstanding: int, seconds: float) -> None:
    client = redis.Redis(unix_socket_path=path)
    for n in range(VALUES):
        client.set(b"bench:%03d" % n, wav(size))
    client.close()
    print(json.dumps(uvloop.run(_loop(path, outstanding, seconds))))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
