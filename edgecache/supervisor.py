"""The supervisor: a process that holds sockets, the private Redis, the admin listener and systemd's ear, and serves nobody.

SIGTERM and SIGINT drain all workers, a second one stops at once; SIGHUP goes to all; SIGUSR2 replaces all, one by one.
"""

import asyncio
import logging
import signal
import time
from typing import TYPE_CHECKING

from edgecache import listening
from edgecache.clock import SystemClock
from edgecache.crew import Crew, Launch
from edgecache.ops import log, startup, systemd
from edgecache.ops.admin import Admin
from edgecache.ops.watching import Watching
from edgecache.own_redis import private_redis
from edgecache.portions import processes
from edgecache.serving import Stop, said_serving
from edgecache.serving import serve as serve_alone
from edgecache.settings import Settings

if TYPE_CHECKING:
    from edgecache.store.private import PrivateRedis


async def serve(settings: Settings) -> None:
    """The daemon, until SIGTERM or SIGINT: in this process if one worker is asked for, else in several."""
    workers = processes(settings.workers)
    if workers == 1:
        return await serve_alone(settings)
    log.start(settings.log)
    asyncio.get_running_loop().set_exception_handler(log.unforeseen)
    supervisor = Supervisor(settings, workers)
    try:
        await supervisor.run()
    finally:
        await supervisor.close()
    log.event(logging.INFO, "stopped")
    return None


class Supervisor:
    """Of one daemon."""

    def __init__(self, settings: Settings, workers: int) -> None:
        startup.check()
        self._settings = settings
        handed = listening.handed_over()
        self._rows = listening.rows(settings, handed, workers)
        self._admin_socket = listening.admin_socket(settings, handed)
        self._workers = workers
        self._private: PrivateRedis | None = None
        self._crew: Crew | None = None
        self._admin: Admin | None = None
        self._watchdog: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Starts all, waits for a signal, drains. SettingsError: it can't serve."""
        began_s, stop = time.monotonic(), Stop()
        stop.listen()
        self._private, redis_url = await private_redis(self._settings)
        crew = self._crew = Crew(Launch(self._settings, self._workers, self._rows, redis_url, began_s))
        watching = Watching(self._settings.slo, SystemClock())
        self._admin = Admin(self._settings.admin, crew, given=self._admin_socket, watching=watching)
        await self._admin.start()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, crew.signal, signal.SIGHUP)
        loop.add_signal_handler(signal.SIGUSR2, self._replace)
        await crew.start()
        port = listening.port_of(self._rows[0][0])
        said_serving(
            self._settings, port, self._admin.port, round(time.monotonic() - began_s, 2), workers=self._workers
        )
        watchdog_s = systemd.watchdog_s()
        if watchdog_s is not None:
            self._watchdog = asyncio.create_task(systemd.keep_watchdog(watchdog_s), name="watchdog")
        systemd.notify("READY=1", f"STATUS=serving on port {port} with {self._workers} workers")
        await stop.soon.wait()
        systemd.notify("STOPPING=1")
        self._stop_listening()
        await stop.carried_out(crew.drain())

    def _replace(self) -> None:
        assert self._crew is not None
        refused = self._crew.replace()
        if refused:
            log.event(logging.WARNING, "the workers are not replaced", reason=refused)

    def _stop_listening(self) -> None:
        for row in self._rows:
            for each in row:
                each.close()

    async def close(self) -> None:
        """Takes everything down."""
        if self._watchdog is not None:
            self._watchdog.cancel()
            await asyncio.gather(self._watchdog, return_exceptions=True)
        self._stop_listening()
        if self._crew is not None:
            await self._crew.close()
        if self._admin is not None:
            await self._admin.close()
        if self._private is not None:
            await self._private.close()
