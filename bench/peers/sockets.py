"""The plainest WebSocket server that aiohttp can be: the same audio in binary frames for every text, as a measure.

`PORT BYTES FRAME_BYTES`. No cache, no keys, no checks.
"""

import asyncio
import sys

import uvloop
from aiohttp import WSMsgType, web

from bench.bare_cluster import wav


class _Sockets:
    def __init__(self, size: int, frame_bytes: int) -> None:
        audio = wav(size)
        self._frames = [audio[at : at + frame_bytes] for at in range(0, size, frame_bytes)]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        line = web.WebSocketResponse(compress=False, autoping=False)
        await line.prepare(request)
        async for message in line:
            if message.type is WSMsgType.TEXT:
                for frame in self._frames:
                    await line.send_bytes(frame)
                await line.send_str('{"type":"synthesis_complete","cache":"hit"}')
        return line


async def _serve(port: int, size: int, frame_bytes: int) -> None:
    server = web.Server(_Sockets(size, frame_bytes).handle, access_log=None)
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", port)
    await listening.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(*map(int, sys.argv[1:4])))
