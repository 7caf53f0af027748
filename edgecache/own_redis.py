"""The private Redis of the daemon: started where none is configured and one is installed."""

import logging
from pathlib import Path

from edgecache.ops import log
from edgecache.settings import Settings
from edgecache.store.private import PrivateRedis, default_directory


async def private_redis(settings: Settings) -> tuple[PrivateRedis | None, str | None]:
    """The daemon's own Redis and its URL, where none is configured; neither, and a line that says why, if there is none."""
    access = settings.cache.redis
    if access.url is not None:
        if access.url == "off":
            log.event(logging.INFO, "Redis is off: recordings are kept in memory alone")
        return None, None
    directory = Path(access.private_directory) if access.private_directory else default_directory()
    private = PrivateRedis(access, directory)
    url = await private.start()
    if url is None:
        log.event(
            logging.WARNING,
            "no private Redis: recordings are kept in memory alone, and gone when this process ends",
            reason=private.fault,
        )
        return None, None
    log.event(logging.INFO, "a private Redis keeps recordings", url=url)
    return private, url
