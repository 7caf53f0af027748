"""The stores in order, and how each is configured."""

from dataclasses import dataclass

from edgecache.option import option


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """The memory tier."""

    max_size_bytes: int = option(512 << 20, "How much audio memory may hold; 0 turns the tier off.", minimum=0)


@dataclass(frozen=True, slots=True)
class RedisAccess:
    """The region's shared tier. Never needed to speak: a fault costs at most `budget`."""

    url: str | None = option(
        None,
        "redis://, rediss:// or unix:// URL of the region's Redis. Absent: a private one if redis-server is installed. "
        '"off": memory alone.',
    )
    password: str | None = option(None, "Password, where the URL has none.", secret=True)
    budget_s: float = option(0.020, "How long a hit may wait for Redis before it counts as a miss.", minimum=0.001)
    write_timeout_s: float = option(1.0, "How long a write behind the answer may take.", minimum=0.01)
    connect_timeout_s: float = option(0.5, "How long connecting may take.", minimum=0.01)
    max_connections: int = option(16, "Connections for reads; writes have a few of their own.", minimum=1)
    max_pending_bytes: int = option(
        64 << 20, "How much may wait to be written; more is dropped and counted.", minimum=0
    )
    breaker_failures: int = option(5, "Faults in a row after which Redis is left alone for a while.", minimum=1)
    breaker_open_s: float = option(1.0, "How long it is left alone before a single probe.", minimum=0.05)
    private_max_memory_bytes: int = option(1 << 30, "maxmemory of the private Redis.", minimum=1 << 20)
    private_directory: str | None = option(
        None, "Where the private Redis has its socket and pid file. Absent: under the runtime directory."
    )
