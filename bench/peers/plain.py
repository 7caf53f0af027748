"""The plainest aiohttp there can be, as a measure of what its machinery costs by itself on the machine at hand.

`hits [BYTES]`: reads the body, answers 32 KiB or so many bytes. `proxy URL`: passes the body on and streams the answer. No
cache, no keys, no checks.
"""

import asyncio
import sys

import aiohttp
import uvloop
from aiohttp import web

from bench.bare_cluster import SIZE, wav


class _Hits:
    def __init__(self, size: int) -> None:
        self._audio = wav(size)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        return web.Response(body=self._audio, headers={"Content-Type": "audio/wav"})


class _Proxy:
    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = f"{url}/v1/tts"
        self._session = session

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET":
            return web.Response(text="ok")
        async with self._session.post(self._url, data=await request.read()) as got:
            answer = web.StreamResponse(headers={"Content-Type": got.headers["Content-Type"]})
            answer.enable_chunked_encoding()
            await answer.prepare(request)
            async for chunk in got.content.iter_any():
                await answer.write(chunk)
            await answer.write_eof()
            return answer


async def _serve(port: int, what: str, *more: str) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        role = _Hits(int(more[0]) if more else SIZE) if what == "hits" else _Proxy(more[0], session)
        server = web.Server(role.handle, access_log=None)
        listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", port)
        await listening.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2], *sys.argv[3:]))
