"""Looking through Redis for recordings, a step at a time. Nobody who asks for speech waits for it.

Keeps rule 6: each step has its time, on a connection of its own that is closed behind it, and none is cancelled in flight.
"""

import asyncio
import re

from edgecache.cache.key import Naming
from edgecache.store.connections import Address, Connections, Refusal, Reply, Unanswered

#: Keys that Redis looks at in one step; it serves nobody else meanwhile.
SCANNED = 200
STEP_S = 2.0
#: Of a prefix, what stands for other keys in a pattern.
_ESCAPED = re.compile(r"[*?\[\]^\\-]")


async def scan(address: Address, naming: Naming, cursor: str) -> tuple[str | None, list[str], str]:
    """Some names under our prefix, and where to go on; None: these were the last. The third is why there are none."""
    connections = Connections(address, 1, STEP_S)
    asking = asyncio.create_task(step(connections, naming, cursor, STEP_S), name="scan Redis")
    try:
        return *await asyncio.shield(asking), ""
    except (Unanswered, Refusal) as fault:
        return None, [], str(fault)
    finally:
        await connections.close()
        await asyncio.wait([asking])


async def step(connections: Connections, naming: Naming, cursor: str, within_s: float) -> tuple[str | None, list[str]]:
    """The same on these connections. Unanswered, Refusal: why not. Run it in a task that nobody cancels."""
    pattern = _ESCAPED.sub(r"\\\g<0>", naming.prefix) + "*"
    return _read(await connections.ask(("SCAN", cursor, "MATCH", pattern, "COUNT", SCANNED), within_s), naming.prefix)


def _read(reply: Reply, prefix: str) -> tuple[str | None, list[str]]:
    match reply:
        case [bytes(further), list(names)]:
            keys = [each.decode("utf-8", "replace") for each in names if isinstance(each, bytes)]
            return None if further == b"0" else further.decode(), [each.removeprefix(prefix) for each in keys]
        case _:
            raise Unanswered("Redis answered SCAN with something else")
