"""The command line as processes beside an edge on the test's own loop."""

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.command_line import PYTHON

#: No figure of ours: by then a process has hung, also on a machine under load.
HANG_S = 60.0


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended, and what it said."""

    code: int | None
    raw: bytes
    talk: str

    @property
    def out(self) -> str:
        """The same, if it is text."""
        return self.raw.decode()

    @property
    def told(self) -> Any:
        """What it told scripts."""
        return json.loads(self.out)


async def begin(*arguments: str, cwd: Path | str = "/", stdin: bool = False) -> Process:
    """One under way."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edgecache", *arguments),
        stdin=PIPE if stdin else DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        cwd=cwd,
        env=PYTHON,
    )


async def end(process: Process, stdin: bytes | None = None) -> Ran:
    """Its end."""
    async with asyncio.timeout(HANG_S):
        out, talk = await process.communicate(stdin)
    return Ran(process.returncode, out, talk.decode())


async def ran(*arguments: str, cwd: Path | str = "/", stdin: bytes | None = None) -> Ran:
    """One from its beginning to its end."""
    return await end(await begin(*arguments, cwd=cwd, stdin=stdin is not None), stdin)
