"""The process: one node served until a signal says stop.

SIGTERM and SIGINT drain and stop, a second one stops at once; SIGHUP reads the keys anew. It does not know the parts.
"""

import asyncio
import gc
import logging
import signal
import time

from edgecache.node import Node
from edgecache.ops import log
from edgecache.settings import Settings


async def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT; a second signal stops at once."""
    log.start(settings.log)
    began_s = time.monotonic()
    node = Node(settings)
    stop, now = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(log.unforeseen)

    def asked_to_stop() -> None:
        (now if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop)
    loop.add_signal_handler(signal.SIGHUP, node.reload_keys)
    await node.start()
    gc.collect()
    gc.freeze()  # what is there now stays; the collector need not walk it between two requests
    took_s = round(time.monotonic() - began_s, 2)
    listen = settings.listen
    log.event(
        logging.INFO,
        "serving",
        url=f"http://{listen.host}:{node.port}",
        admin=f"http://{settings.admin.host}:{node.admin_port}",
        ready_in_s=took_s,
    )
    await stop.wait()
    draining = asyncio.create_task(node.drain(), name="drain")
    at_once = asyncio.create_task(now.wait(), name="second signal")
    await asyncio.wait({draining, at_once}, return_when=asyncio.FIRST_COMPLETED)
    if now.is_set():
        log.event(logging.WARNING, "second signal: stopping at once; streams are broken off")
    for task in (draining, at_once):
        task.cancel()
    await asyncio.gather(draining, at_once, return_exceptions=True)
    await node.close()
    log.event(logging.INFO, "stopped")
