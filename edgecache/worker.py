"""One of several workers: a process that its supervisor started, and that ends when its supervisor does.

What it is to do comes over the control channel: settings, sockets, where Redis is. Its answers go back the same way.
"""

import asyncio
import signal
import socket
import sys
from typing import Any

import msgspec
import uvloop

from edgecache.errors import SettingsError
from edgecache.listening import Berth
from edgecache.node import Node
from edgecache.ops import log
from edgecache.ops.channel import Channel
from edgecache.ops.daemon import Told
from edgecache.ops.whole import KEPT
from edgecache.serving import Stop, run
from edgecache.settings import Settings

#: As for a daemon that may not serve.
REFUSED = 2


class Worker:
    """The worker's side of the channel."""

    def __init__(self) -> None:
        self.channel = Channel(self._answer, self._hear)
        self._order: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._node: Node | None = None
        self._stop = Stop()

    async def work(self, end: socket.socket) -> int:
        """Its exit code, when it has ended."""
        await self.channel.open(end)
        gone = asyncio.create_task(self._watch(), name="watch the supervisor")
        self._stop.listen()
        try:
            return await self._serve(await self._order)
        finally:
            gone.cancel()
            await self.channel.flush()
            await self.channel.close()

    async def _serve(self, order: dict[str, Any]) -> int:
        settings = msgspec.convert(order["settings"], Settings)
        log.start(settings.log)
        rows = tuple(tuple(socket.socket(fileno=each) for each in row) for row in order["sockets"])
        berth = Berth(rows, order["slot"], order["redis_url"], supervised=True, began_s=order["began_s"])
        self._node = Node(settings, berth=berth)
        try:
            await run(self._node, self._stop, self._started)
        except SettingsError as error:
            self.channel.tell("refused", {"message": str(error)})
            return REFUSED
        self.channel.tell("last", {name: await self._node.calls[name]({}) for name in KEPT})
        return 0

    async def _started(self) -> None:
        self.channel.tell("started", {})

    async def _watch(self) -> None:
        """Without a supervisor nobody could stop us, or start us again: what is under way is finished."""
        await self.channel.ended.wait()
        if not self._order.done():
            self._order.cancel()
        self._stop.soon.set()

    async def _answer(self, call: str, argument: Told) -> Told:
        assert self._node is not None, "not serving yet"
        return await self._node.calls[call](argument)

    def _hear(self, word: str, told: Told) -> None:
        if word == "serve" and not self._order.done():
            self._order.set_result(dict(told))


async def _work(end: socket.socket) -> int:
    return await Worker().work(end)


def main() -> None:
    """`python -m edgecache.worker DESCRIPTOR`, as the supervisor starts it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there are keys to be read anew
    end = socket.socket(fileno=int(sys.argv[1]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        raise SystemExit(runner.run(_work(end)))


if __name__ == "__main__":
    main()
