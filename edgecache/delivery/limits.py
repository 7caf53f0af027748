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
class WebSockets:
    """Sessions over WebSocket, and their bounds."""

    frame_bytes: int = option(4096, "How much audio goes into one binary frame, at most.", minimum=64, maximum=64 << 10)
    message_bytes: int = option(64 << 10, "The largest message that a client may send.", minimum=64)
    messages_per_second: float = option(
        100.0, "How many messages, pings included, a client may send for long; for a moment twice as many.", minimum=0.1
    )
    waiting: int = option(32, "Texts that may wait for their turn in one session.", minimum=1)
    heartbeat_s: float = option(
        15.0, "A silent client is pinged after this; half as long again and it is gone.", minimum=0.1
    )
    lifetime_s: float = option(3600.0, "How long a session may last.", minimum=0.1)
    origins: tuple[str, ...] = option(
        (),
        'Pages that may open sessions, such as `["https://app.example"]`, besides those of the edge\'s own host; '
        '`["*"]`: all.',
    )


@dataclass(frozen=True, slots=True)
class Listen:
    """An address to serve."""

    host: str = option("127.0.0.1", "Address. Without API keys only loopback is served.")
    port: int = option(8080, "Port; 0 lets the system choose.", minimum=0, maximum=65535)


@dataclass(frozen=True, slots=True)
class FastLane:
    """Hits and misses that need nothing unusual are answered without aiohttp."""

    enabled: bool = option(True, "Off: every request goes through aiohttp; clients see no difference but the time.")
    memo_bytes: int = option(
        16 << 20, "How much of the requests seen before is kept, so that they need not be read again.", minimum=0
    )
    sheets_bytes: int = option(
        32 << 20,
        "How much of the recordings asked for most is kept a second time, in pages that the kernel sends without a copy.",
        minimum=0,
    )
