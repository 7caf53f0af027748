"""An open-loop load generator: requests leave when the schedule says, whether or not earlier answers are there.

Latency is counted from the scheduled time, so that a server which stalls is not spared the requests it held up
(coordinated omission). One process, one event loop, raw HTTP/1.1 on keep-alive connections.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast


@dataclass(slots=True)
class Sample:
    """One answer, in seconds from its scheduled time."""

    first_byte_s: float
    last_byte_s: float
    ok: bool


@dataclass(slots=True)
class Run:
    """What a load came to."""

    asked_rate: float
    duration_s: float = 0.0
    samples: list[Sample] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return len(self.samples) / self.duration_s if self.duration_s else 0.0

    @property
    def failed(self) -> int:
        return sum(not sample.ok for sample in self.samples)

    def last_byte_ms(self, share: float) -> float:
        return quantile([sample.last_byte_s for sample in self.samples], share) * 1000

    def first_byte_ms(self, share: float) -> float:
        return quantile([sample.first_byte_s for sample in self.samples], share) * 1000


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


class Line(asyncio.Protocol):
    """One keep-alive connection; one request at a time."""

    def __init__(self, idle: "deque[Line]", done: Callable[["Line"], None]) -> None:
        self._idle = idle
        self._done = done
        self._transport: asyncio.Transport | None = None
        self._got = bytearray()
        self._body_at = self._body_end = -1
        self._due_s = self._first_s = 0.0
        self.sample: Sample | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._idle.append(self)

    def ask(self, request: bytes, due_s: float) -> None:
        assert self._transport is not None
        self._got.clear()
        self._body_at = self._body_end = -1
        self._due_s, self._first_s = due_s, 0.0
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        if self._body_at < 0:
            at = self._got.find(b"\r\n\r\n")
            if at < 0:
                return
            self._body_at = at + 4
            head = bytes(self._got[:at]).lower()
            where = head.find(b"content-length:")
            if where >= 0:
                self._body_end = self._body_at + int(head[where + 15 :].split(b"\r\n", 1)[0])
        if not self._first_s and len(self._got) > self._body_at:
            self._first_s = time.perf_counter()
        known = self._body_end >= 0
        if len(self._got) >= self._body_end if known else self._got.endswith(b"\r\n0\r\n\r\n"):
            now_s = time.perf_counter()
            ok = self._got.startswith(b"HTTP/1.1 200")
            self.sample = Sample((self._first_s or now_s) - self._due_s, now_s - self._due_s, ok)
            self._done(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


@dataclass(frozen=True, slots=True)
class Plan:
    """Whom to ask, how often and for how long."""

    port: int
    rate: float
    seconds: float
    connections: int = 32
    warmup_s: float = 0.5
    seed: int = 1


async def load(plan: Plan, request: Callable[[int], bytes]) -> Run:
    """Sends `request(n)` at exponentially spaced times; the warm-up is not counted."""
    loop, idle, waiting = asyncio.get_running_loop(), deque[Line](), deque[tuple[bytes, float]]()
    run, under_way = Run(plan.rate), 0
    counted_from_s = time.perf_counter() + plan.warmup_s
    quiet = asyncio.Event()

    def done(line: Line) -> None:
        nonlocal under_way
        under_way -= 1
        assert line.sample is not None
        if line._due_s >= counted_from_s:
            run.samples.append(line.sample)
        if waiting:
            line.ask(*waiting.popleft())
        else:
            idle.append(line)
        if not under_way:
            quiet.set()

    lines = [
        (await loop.create_connection(lambda: Line(idle, done), "127.0.0.1", plan.port))[1]
        for _ in range(plan.connections)
    ]
    rng, number = random.Random(plan.seed), 0
    due_s = time.perf_counter()
    end_s = due_s + plan.warmup_s + plan.seconds
    while due_s < end_s:
        pause_s = due_s - time.perf_counter()
        if pause_s > 0:
            await asyncio.sleep(pause_s)
        under_way += 1
        quiet.clear()
        if idle:
            idle.popleft().ask(request(number), due_s)
        else:
            waiting.append((request(number), due_s))
        number += 1
        due_s += rng.expovariate(plan.rate)
    async with asyncio.timeout(30):
        await quiet.wait()
    run.duration_s = plan.seconds
    for line in lines:
        line.close()
    return run


def tts_request(body: bytes, headers: str = "") -> bytes:
    """A POST /v1/tts as an ordinary client sends it."""
    head = f"POST /v1/tts HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
