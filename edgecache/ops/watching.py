"""The admin listener's view of all that is measured: asks the workers now and then, and keeps windows over what they tell.

One `Watching` is the listener's, wherever that runs. What takes milliseconds is not felt by who is being answered: adding
up and windows are done on the event loop, a slice at a time, as a thread would hold Python's lock for as long as it may
each time the loop gives it up; rendering, which can't be cut, in a thread. Keeps rule 8: what is told here was counted, and
what was counted has no text in it.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeVar, cast

from aiohttp import web

from edgecache.clock import Clock
from edgecache.ops import dashboard, metrics, modes
from edgecache.ops.daemon import Daemon, NoWorker, Route, json_answer
from edgecache.ops.gathering import Counts, Gathering, unpacked
from edgecache.ops.glance import Glance, glance
from edgecache.ops.objectives import Promises
from edgecache.ops.promises import Row, Watch
from edgecache.ops.windows import Window

#: The workers are asked so often if nobody else asks: what a worker counted since then is lost if it is killed.
EVERY_S = 5.0
#: What was heard so lately is told again: many who ask at once cost no more than one.
FRESH_S = 0.5
#: While something is worked out beside the loop, the loop gets its turn within this.
SWITCH_S = 0.0005
_USUAL_S = sys.getswitchinterval()
#: The window of the dashboard's and `top`'s rates.
GLANCE_S = 60.0

T = TypeVar("T")


class Watching:
    """All that is measured, for the admin listener. Its routes are added to the others; it is kept up by `keeping`."""

    def __init__(self, promises: Promises, clock: Clock) -> None:
        self._clock = clock
        self._gathering = Gathering()
        now = clock.monotonic()
        self._watch = Watch(promises, now)
        self._window = Window(GLANCE_S, now)
        self._counts: Counts = {}
        self._rows: list[Row] = []
        self._errors: list[Mapping[str, Any]] = []
        self._covers_s: Mapping[str, float] = {}
        self._told: Mapping[str, object] = {}
        self._heard_s: float | None = None
        self._one_at_a_time = asyncio.Lock()
        self.routes = (
            Route("GET", "/metrics", self._metrics),
            Route("GET", "/slo", self._slo),
            Route("GET", "/glance", self._glance),
            Route("GET", "/errors", self._errors_told),
            *dashboard.ROUTES,
        )

    async def keeping(self, daemon: Daemon) -> None:
        """Asks now and then, until it is cancelled."""
        while True:
            with suppress(NoWorker):  # the next time, then; a route tells whoever asks
                await self.hear(daemon)
            await asyncio.sleep(EVERY_S)

    async def hear(self, daemon: Daemon) -> None:
        """Asks the workers, unless that was just done. NoWorker: none answered, and none ever did."""
        async with self._one_at_a_time:
            if self._heard_s is not None and self._clock.monotonic() - self._heard_s < FRESH_S:
                return
            told = cast("list[dict[str, Any]]", await daemon.ask("measures"))
            for _ in self._digest(told):
                await asyncio.sleep(0)  # whoever waits is answered between
            self._heard_s = self._clock.monotonic()

    def _digest(self, told: list[dict[str, Any]]) -> Iterator[None]:
        """Adds up what was told, in slices of tenths of a millisecond; what others are told changes at the end, at once."""
        now, answers, rows = self._clock.monotonic(), dict[str, Counts](), list[Row]()
        for each in told:
            answers[each["worker"]] = unpacked(each["counts"])
            yield
        counts = modes.one(self._gathering.take(answers))
        yield
        for row in self._watch.observe(counts, now):
            rows.append(row)
            yield
        self._window.mark(counts, now)
        seen = glance(Glance(counts, self._window, now))
        yield
        errors = [error for each in told for error in each["errors"]]
        self._counts, self._rows, self._told = counts, rows, seen
        self._covers_s = {name: round(seconds, 1) for name, seconds in self._watch.covers_s(now).items()}
        self._errors = sorted(errors, key=lambda error: -error["at_s"])[:64]

    # What is told.

    async def _metrics(self, daemon: Daemon, request: web.Request) -> web.StreamResponse:
        await self.hear(daemon)
        counts, accept = {**self._counts, **metrics.of_promises(self._rows)}, request.headers.get("Accept", "")
        body, media_type = await beside(lambda: metrics.rendered(counts, accept))
        return web.Response(body=body, headers={"Content-Type": media_type})

    async def _slo(self, daemon: Daemon, _: web.Request) -> web.StreamResponse:
        await self.hear(daemon)
        return json_answer({"objectives": [row.told() for row in self._rows], "windows_s": self._covers_s})

    async def _glance(self, daemon: Daemon, _: web.Request) -> web.StreamResponse:
        await self.hear(daemon)
        return json_answer(self._told)

    async def _errors_told(self, daemon: Daemon, _: web.Request) -> web.StreamResponse:
        await self.hear(daemon)
        return json_answer({"errors": self._errors})


async def beside(work: Callable[[], T]) -> T:
    """Works in a thread that gives way: Python's own switch interval would keep the loop waiting ten times as long."""
    sys.setswitchinterval(SWITCH_S)
    try:
        return await asyncio.to_thread(work)
    finally:
        sys.setswitchinterval(_USUAL_S)


def kept(watching: Watching, daemon: Daemon) -> Callable[[web.Application], AsyncIterator[None]]:
    """For an application's `cleanup_ctx`: keeps watching while it serves."""

    async def context(_: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(watching.keeping(daemon), name="watch the workers")
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    return context
