"""Time in which this machine ran us: what tests go by that say how long something may take at most."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

BEAT_S = 0.01


@dataclass(slots=True)
class Attention:
    """took_s: the seconds since it began, less those in which this process's event loop stood still."""

    took_s: float = 0.0


@asynccontextmanager
async def attention() -> AsyncIterator[Attention]:
    """Counts in the block. A beat counts as one however late it comes: a machine that is stopped, or busy with others,
    makes nothing last longer."""
    paid = Attention()

    async def beat() -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            paid.took_s += BEAT_S

    beating = asyncio.create_task(beat())
    try:
        yield paid
    finally:
        beating.cancel()
