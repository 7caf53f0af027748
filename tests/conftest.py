"""What more than one test file needs: a Redis, and the event loop that tests run on.

EDGECACHE_TEST_LOOP is `uvloop` (production's, and the default), `asyncio`, or `debug`: asyncio in its debug mode, which
tells of calls from a wrong thread and of coroutines that nobody awaited.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Mapping

import pytest
import uvloop

from tests.redis_server import RedisServer


def _uvloop() -> asyncio.AbstractEventLoop:
    """uvloop only logs what a signal's handler raises, and so would lose pytest-timeout's: there the test is cancelled."""
    loop = uvloop.new_event_loop()
    loop.add_signal_handler(signal.SIGALRM, lambda: [task.cancel("timeout") for task in asyncio.all_tasks(loop)])
    return loop


LOOPS: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": _uvloop,
    "asyncio": asyncio.new_event_loop,
    "debug": asyncio.new_event_loop,
}
LOOP = os.environ.get("EDGECACHE_TEST_LOOP") or "uvloop"


def pytest_configure(config: pytest.Config) -> None:
    """Debug mode is the runner's to turn on: it overrules what a loop was made with."""
    if LOOP not in LOOPS:
        raise pytest.UsageError(f"EDGECACHE_TEST_LOOP is {LOOP!r}; it can be {', '.join(LOOPS)}")
    if LOOP == "debug":
        config.option.asyncio_debug = True


#: Files that take a minute or more each. They come first, so that none of them is what is left for one process at the end.
LONG = frozenset(
    f"test_{name}.py"
    for name in ("soak", "workers", "daemon", "demo", "house", "cli", "warming", "privacy", "differential", "modes")
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """See `make test`, which hands out files in this order."""
    items.sort(key=lambda each: each.path.name not in LONG)


def pytest_report_header() -> str:
    return f"event loop: {LOOP} (EDGECACHE_TEST_LOOP)"


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """One loop, so that names of tests stay the same."""
    return {LOOP: LOOPS[LOOP]}


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """An edge within a test is ready on a busy machine too."""
    monkeypatch.setattr("edgecache.node.STOOD_STILL_S", 60.0)


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A fresh, empty Redis."""
    server = RedisServer()
    try:
        yield server.start()
    finally:
        server.close()
