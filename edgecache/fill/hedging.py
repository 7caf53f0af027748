"""Two clusters asked for the same, of which the first that gives audio is heard.

Keeps rule 5: the one that is heard is heard to its end, the other is cancelled, and nothing of it is. It does not know who
is asked, nor whether a second may be.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from edgecache.clock import Clock
from edgecache.clusters.fault import UpstreamFault


class Beaten(Exception):
    """Another was heard first. It says nothing about the cluster."""


class Runner(Protocol):
    """One attempt. audible: whether it is the one that is heard."""

    @property
    def audible(self) -> bool: ...
    async def run(self, within_s: float) -> None: ...


class Race:
    """One attempt, and maybe a second beside it."""

    def __init__(self, clock: Clock, deadline_s: float) -> None:
        """deadline_s: by then one has to be heard, on the clock."""
        self._clock = clock
        self._deadline_s = deadline_s
        self._running: dict[Runner, asyncio.Task[None]] = {}

    async def run(self, first: Runner, late_s: float, second: Callable[[], Runner | None]) -> None:
        """Ends as the attempt that is heard does. UpstreamFault: none was, or that one broke."""
        try:
            self._begin(first)
            await asyncio.wait(self._running.values(), timeout=late_s)
            if not first.audible and not self._running[first].done():
                another = second()
                if another is not None:
                    self._begin(another)
            await self._decide()
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    def heard(self, winner: Runner) -> None:
        """This one is heard: the other is given up, now."""
        for runner, task in self._running.items():
            if runner is not winner:
                task.cancel()

    def _begin(self, runner: Runner) -> None:
        within_s = self._deadline_s - self._clock.monotonic()
        self._running[runner] = asyncio.create_task(runner.run(within_s), name="attempt")

    async def _decide(self) -> None:
        """Waits for the attempt that is heard, or for the last that fails."""
        fault: UpstreamFault | None = None
        pending = set(self._running.values())
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for runner, task in self._running.items():
                if task not in done or task.cancelled():
                    continue
                try:
                    with suppress(Beaten):
                        task.result()
                        return
                except UpstreamFault as met:
                    if runner.audible or not met.elsewhere:
                        raise
                    fault = met
        assert fault is not None, "nobody was heard and nobody failed"
        raise fault
