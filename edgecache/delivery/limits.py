"""Bounds on what a client may send and how slowly (rule 7), checked before any work is done."""

from dataclasses import dataclass

from edgecache.option import option


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Past a bound the answer is a clear 4xx/5xx, not a slow death."""

    body_bytes: int = option(512 << 10, "The largest request body.", minimum=1)
    text_characters: int = option(5000, "The longest text that is asked for whole, in code points.", minimum=1)
    connections: int = option(10_000, "Client connections at once.", minimum=1)
    header_timeout_s: float = option(5.0, "To send a whole request head.", minimum=0.05)
    body_timeout_s: float = option(10.0, "To send a whole request body.", minimum=0.05)
    keep_alive_s: float = option(30.0, "How long an idle connection is kept.", minimum=0.05)
    write_stall_s: float = option(15.0, "How long a client may read nothing before it is dropped.", minimum=0.05)


@dataclass(frozen=True, slots=True)
class Listen:
    """An address to serve."""

    host: str = option("127.0.0.1", "Address. Without API keys only loopback is served.")
    port: int = option(8080, "Port; 0 lets the system choose.", minimum=0, maximum=65535)


@dataclass(frozen=True, slots=True)
class FastLane:
    """Hits that need nothing unusual are answered at once, without aiohttp."""

    enabled: bool = option(True, "Off: every request goes through aiohttp; clients see no difference but the time.")
    memo_bytes: int = option(
        16 << 20, "How much of the requests seen before is kept, so that they need not be read again.", minimum=0
    )
