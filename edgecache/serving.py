"""One process: one node served until a signal says stop.

SIGTERM and SIGINT drain and stop, a second one stops at once; SIGHUP reads the keys anew. It does not know the parts.
Alone it is the whole daemon; as a worker it does the same, and its supervisor sends the signals.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable

from edgecache import listening
from edgecache.node import Node
from edgecache.ops import log, systemd
from edgecache.ops.collecting import Collecting
from edgecache.settings import Settings


async def serve(settings: Settings) -> None:
    """The daemon in one process, until SIGTERM or SIGINT; a second signal stops at once."""
    log.start(settings.log)
    handed = listening.handed_over()
    rows = listening.rows(settings, handed, 1)
    node = Node(settings, berth=listening.Berth(rows, admin=listening.admin_socket(settings, handed)))
    began_s = time.monotonic()

    async def started() -> None:
        said_serving(settings, node.port, node.admin_port, round(time.monotonic() - began_s, 2))
        systemd.notify("READY=1", f"STATUS=serving on port {node.port}")
        watchdog_s = systemd.watchdog_s()
        if watchdog_s is not None:
            node.background(systemd.keep_watchdog(watchdog_s))

    stop = Stop()
    stop.listen()
    await run(node, stop, started)
    log.event(logging.INFO, "stopped")


def said_serving(settings: Settings, port: int, admin_port: int, ready_in_s: float, workers: int = 1) -> None:
    """The line that says where the daemon is."""
    log.event(
        logging.INFO,
        "serving",
        url=f"http://{settings.listen.host}:{port}",
        admin=f"http://{settings.admin.host}:{admin_port}",
        workers=workers,
        ready_in_s=ready_in_s,
    )


class Stop:
    """Asked to stop, and asked again."""

    def __init__(self) -> None:
        self.soon, self.now = asyncio.Event(), asyncio.Event()

    def ask(self) -> None:
        """Once: soon. Twice: now."""
        (self.now if self.soon.is_set() else self.soon).set()

    def listen(self) -> None:
        """Signals ask, from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.ask)

    async def carried_out(self, drain: Awaitable[None]) -> None:
        """Waits for the drain, unless asked again meanwhile."""
        draining = asyncio.ensure_future(drain)
        at_once = asyncio.create_task(self.now.wait(), name="second signal")
        await asyncio.wait({draining, at_once}, return_when=asyncio.FIRST_COMPLETED)
        if self.now.is_set():
            log.event(logging.WARNING, "second signal: stopping at once; streams are broken off")
        for task in (draining, at_once):
            task.cancel()
        await asyncio.gather(draining, at_once, return_exceptions=True)


async def run(node: Node, stop: Stop, started: Callable[[], Awaitable[None]]) -> None:
    """Serves until asked to stop. started: is awaited once it serves. SettingsError: it can't."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(log.unforeseen)
    loop.add_signal_handler(signal.SIGHUP, node.reload_keys)
    await node.start()
    collecting = Collecting(lambda: node.quiet)
    collecting.start()
    await started()
    await stop.soon.wait()
    await stop.carried_out(node.drain())
    await node.close()
    collecting.stop()


def unwatched() -> dict[str, str]:
    """Our environment without what systemd tells this process alone."""
    ours = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    return {name: told for name, told in os.environ.items() if name not in ours}
