"""Clusters that are asked within traces: each asking is a span of its own, and the cluster is told its id.

It stands before the clusters where spans are told, and is not there where they are not. It decides nothing, and does not
know where spans go.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

import msgspec

from edgecache.cache import trace
from edgecache.cache.trace import Trace
from edgecache.clock import Clock
from edgecache.clusters.fault import UpstreamFault
from edgecache.clusters.routing import Whose
from edgecache.clusters.selection import Chosen, NoneLeft
from edgecache.errors import SpeechError
from edgecache.fill.attempt import Answer, Clusters
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

    @asynccontextmanager
    async def ask(self, chosen: Chosen, utterance: Utterance, forwarding: Mapping[str, str]) -> AsyncIterator[Answer]:
        """One exchange, and a span of it if its trace is sampled."""
        given = trace.read(forwarding)
        if given is None or not given.sampled:
            async with self._clusters.ask(chosen, utterance, forwarding) as answer:
                yield answer
            return
        span, began_s, failure = self._spans.begin(given), self._clock.monotonic(), ""
        self._heard_s[id(chosen)] = -1.0
        try:
            async with self._clusters.ask(chosen, utterance, {**forwarding, **span.headers}) as answer:
                yield answer
        except BaseException as error:
            failure = _named(error)
            raise
        finally:
            heard_s, took_s = self._heard_s.pop(id(chosen)), self._clock.monotonic() - began_s
            first_s = heard_s if heard_s >= 0 else None
            self._spans.asked(Attempted(span, chosen.cluster, chosen.upstream, took_s, first_s, failure))


def _named(error: BaseException) -> str:
    match error:
        case UpstreamFault():
            return error.fault.value
        case SpeechError():
            return error.code
        case _:
            return type(error).__name__
