"""Clusters that are asked within traces: each asking is a span of its own, and the cluster is told its id.

It stands before the clusters where spans are told, and is not there where they are not. It decides nothing, and does not
know where spans go.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Protocol

import msgspec

from edgecache.cache import trace
from edgecache.cache.trace import Trace
from edgecache.clock import Clock
from edgecache.clusters.fault import UpstreamFault
from edgecache.clusters.routing import Whose
from edgecache.clusters.selection import Chosen, NoneLeft
from edgecache.errors import SpeechError
from edgecache.fill.attempt import Answer, Clusters, Exchange
from edgecache.speech.utterance import Utterance


class Attempted(msgspec.Struct, frozen=True):
    """One asking that is over. first_audio_s: None if it was not heard. failure: what went wrong, in a word; or empty."""

    trace: Trace
    cluster: str
    upstream: str
    took_s: float
    first_audio_s: float | None
    failure: str


class Spans(Protocol):
    """Makes a span within another, and is told when it is over."""

    def begin(self, given: Trace | None) -> Trace: ...
    def asked(self, attempt: Attempted) -> None: ...


class Traced:
    """See `fill.attempt.Clusters`."""

    def __init__(self, clusters: Clusters, clock: Clock, spans: Spans) -> None:
        self._clusters = clusters
        self._clock = clock
        self._spans = spans
        #: How soon those spoke that are being asked, by whom was chosen.
        self._heard_s: dict[int, float] = {}

    def choose(self, tried: Collection[str], whose: Whose) -> Chosen | NoneLeft:
        """Whom to ask."""
        return self._clusters.choose(tried, whose)

    def late_s(self, upstream: str) -> float | None:
        """When it is late."""
        return self._clusters.late_s(upstream)

    def on_room(self, told: Callable[[], None]) -> None:
        """Whom to tell of room."""
        self._clusters.on_room(told)

    def heard(self, chosen: Chosen, first_audio_s: float, real_time_factor: float | None) -> None:
        """How soon it spoke."""
        if id(chosen) in self._heard_s:
            self._heard_s[id(chosen)] = first_audio_s
        self._clusters.heard(chosen, first_audio_s, real_time_factor)

    def ask(self, chosen: Chosen, utterance: Utterance, forwarding: Mapping[str, str]) -> Exchange:
        """One exchange, and a span of it if its trace is sampled."""
        given = trace.read(forwarding)
        if given is None or not given.sampled:
            return self._clusters.ask(chosen, utterance, forwarding)
        span = self._spans.begin(given)
        self._heard_s[id(chosen)] = -1.0
        return _Spanned(self._clusters.ask(chosen, utterance, {**forwarding, **span.headers}), self._over(chosen, span))

    def _over(self, chosen: Chosen, span: Trace) -> Callable[[BaseException | None], None]:
        began_s = self._clock.monotonic()

        def over(error: BaseException | None) -> None:
            heard_s, took_s = self._heard_s.pop(id(chosen)), self._clock.monotonic() - began_s
            first_s, failure = heard_s if heard_s >= 0 else None, "" if error is None else _named(error)
            self._spans.asked(Attempted(span, chosen.cluster, chosen.upstream, took_s, first_s, failure))

        return over


class _Spanned(AbstractAsyncContextManager[Answer]):
    """An exchange of which its span is told how it ended."""

    def __init__(self, exchange: Exchange, over: Callable[[BaseException | None], None]) -> None:
        self._exchange = exchange
        self._over = over

    def begin(self, hear: Callable[[Answer], Callable[[bytes], None]]) -> None:
        self._exchange.begin(hear)

    def abandon(self) -> None:
        self._exchange.abandon()
        self._over(asyncio.CancelledError())

    async def __aenter__(self) -> Answer:
        try:
            return await self._exchange.__aenter__()
        except BaseException as error:
            self._over(error)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exchange.__aexit__(kind, error, trace)
        self._over(error)


def _named(error: BaseException) -> str:
    match error:
        case UpstreamFault():
            return error.fault.value
        case SpeechError():
            return error.code
        case _:
            return type(error).__name__
