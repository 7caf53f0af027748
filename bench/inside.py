"""A demo cluster and an edge in front of it, in the benchmark's own process: where no peer is beside it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from edgecache.clusters.cluster import Cluster, Timeouts
from edgecache.delivery.limits import Listen
from edgecache.demo.knobs import Knobs
from edgecache.demo.origin import Origin
from edgecache.node import Node
from edgecache.ops.access import AdminAccess
from edgecache.ops.log import Logging
from edgecache.settings import Cache, Settings
from edgecache.store.tiers import RedisAccess


@asynccontextmanager
async def edge(knobs: Knobs, timeouts: Timeouts | None = None) -> AsyncIterator[Node]:
    """One that serves, without Redis and without an access log. timeouts: towards the cluster, if not the usual ones."""
    origin = Origin(knobs)
    await origin.start()
    settings = Settings(
        listen=Listen(port=0),
        admin=AdminAccess(port=0),
        clusters=(Cluster(name="demo", url=origin.url),),
        cache=Cache(redis=RedisAccess(url="off")),
        log=Logging(access=False),
    )
    node = Node(settings if timeouts is None else replace(settings, timeouts=timeouts))
    await node.start()
    try:
        yield node
    finally:
        await node.close()
        await origin.close()
