"""A program that turns what is written to it into what is read from it, and that never outlives its use.

Keeps the rule that leaving the context ends the process and collects it, however it was left: no zombie, no orphan.
"""

import asyncio
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

READ_BYTES = 64 << 10
#: How much is kept of what a program says besides: espeak-ng's child tells timings, a hundred bytes a word.
_SAID_BYTES = 1 << 20


class Child:
    """One running program."""

    __slots__ = ("_process",)

    def __init__(self, process: Process) -> None:
        self._process = process

    def __repr__(self) -> str:
        return f"<Child {self._process.pid} status {self._process.returncode}>"

    @classmethod
    @asynccontextmanager
    async def started(cls, command: Sequence[str]) -> AsyncIterator["Child"]:
        """The program, running; it is over when the context is."""
        process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        try:
            yield cls(process)
        finally:
            await _over(process)

    async def write(self, content: bytes) -> None:
        """Writes, and waits while the program is behind. A program that has ended takes no more; `ended` says why."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(content)
            await self._process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            return

    def write_end(self) -> None:
        """Says that there is no more to come."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def write_all(self, content: bytes) -> None:
        """Writes something small and says that it is all."""
        assert self._process.stdin is not None
        self._process.stdin.write(content)
        self._process.stdin.close()

    async def read(self) -> bytes:
        """What the program has said since; empty: it says no more."""
        assert self._process.stdout is not None
        return await self._process.stdout.read(READ_BYTES)

    async def ended(self) -> tuple[int, str]:
        """The exit status, and what it said besides: of what it complained."""
        assert self._process.stderr is not None
        said = bytearray()
        while piece := await self._process.stderr.read(READ_BYTES):
            said += piece[: _SAID_BYTES - len(said)]
        return await self._process.wait(), said.decode(errors="replace").strip()


async def _over(process: Process) -> None:
    """Kills what still runs and reads its pipes to the end, so that they are closed when this returns."""
    if process.returncode is None:
        process.kill()
    if process.stdin is not None:
        process.stdin.close()
    await process.communicate()
