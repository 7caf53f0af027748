"""A time-out that does not charge others with our own standing still.

A process that was stopped, or a machine that was suspended, finds all its timers over when it goes on, and they come before
whatever was said meanwhile is read. So who is waited for has a moment more, once: where a timer comes far too late, several;
and one always, for it may have stood still until just after the time, or have been busy, with the answer in the socket.
"""

import asyncio
from types import TracebackType
from typing import Self

#: A timer that comes so late says that this process stood still, or was stopped; then there are some moments more. Several
#: short ones: each is a turn of the event loop, in which it reads what is there, however little of the processor it gets.
OUR_FAULT_S, MOMENT_S, MOMENTS = 0.2, 0.01, 5


def moments(late_s: float) -> int:
    """How many there are when a timer comes so late. Each is begun by `call_soon`: timers that are set by timers may come in
    the same turn, if that takes long, and nothing is read between."""
    return MOMENTS if late_s > OUR_FAULT_S else 1


class Patience:
    """`async with Patience(2.0) as patience:` raises TimeoutError when the block takes longer, unless `patience.end()` was
    called before. What is left of a time may be less than nothing: far less, and it was our own standing still again."""

    __slots__ = ("_due_at", "_left", "_timeout", "_timer", "_within_s")

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._due_at = 0.0
        #: How many moments more there are; below 0: its time is not over.
        self._left = -1
        self._timer: asyncio.Handle | None = None
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        await self._timeout.__aenter__()
        self._due_at = loop.time() + self._within_s
        self._timer = loop.call_at(self._due_at, self._over)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        await self._timeout.__aexit__(kind, error, trace)

    def end(self) -> None:
        """From now on the block may take as long as it will."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _over(self) -> None:
        loop = asyncio.get_running_loop()
        if self._left < 0:
            self._left = moments(loop.time() - self._due_at)
        if self._left:
            self._left -= 1
            self._timer = loop.call_soon(self._wait_a_moment)
            return
        self._timer = None
        self._timeout.reschedule(loop.time())

    def _wait_a_moment(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(MOMENT_S, self._over)
