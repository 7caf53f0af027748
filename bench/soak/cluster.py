"""`python -m bench.soak.cluster PORT`: a demo cluster whose knobs are turned while it serves, by lines of JSON on stdin.

A line has all knobs that are not as usual. What stalls goes on when the knobs are turned. It ends when its stdin does.
"""

import asyncio
import json
import sys
from typing import Any

import uvloop

from edgecache.demo.knobs import Knobs
from edgecache.demo.origin import Origin

#: As usual: it thinks for a moment and speaks at twenty times real time, so that others can join.
USUAL: dict[str, Any] = {"voice": "tone", "first_byte_ms": 20.0, "rtf": 0.05}


async def _serve(port: int) -> None:
    origin = Origin(Knobs(**USUAL), port=port)
    turned = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(turned), sys.stdin)
    await origin.start()
    try:
        while line := await turned.readline():
            origin.knobs = Knobs(**{**USUAL, **json.loads(line)})
            origin.release()
    finally:
        await origin.close()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
