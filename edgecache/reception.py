"""How clients are received: what all exchanges of a node share, put together from its parts.

It builds nothing that is started or closed: whoever has the parts does.
"""

from collections.abc import Callable
from dataclasses import dataclass

from edgecache.cache.status import Outcome
from edgecache.cache.tally import Tally
from edgecache.clock import Clock
from edgecache.delivery.auth import Gate
from edgecache.delivery.fastlane import Lane, Ways
from edgecache.delivery.http import Service
from edgecache.delivery.listening import Audience
from edgecache.delivery.readiness import Readiness
from edgecache.delivery.streamhead import StreamHeads
from edgecache.delivery.turn import Means
from edgecache.delivery.websocket import Sockets
from edgecache.fill.edge import Edge
from edgecache.measures.lag import Lag
from edgecache.ops import log
from edgecache.ops.spans import Tracer, both
from edgecache.settings import Settings


@dataclass(frozen=True, slots=True)
class Parts:
    """What there is. tracer: tells of spans; None: nobody does."""

    settings: Settings
    edge: Edge
    gate: Gate
    readiness: Readiness
    clock: Clock
    tally: Tally
    lag: Lag
    tracer: Tracer | None


def service(parts: Parts) -> Service:
    """What all exchanges share."""
    settings, tracer = parts.settings, parts.tracer
    told = both(None if tracer is None else tracer.exchange, log.access if settings.log.access else None)
    ways = Ways(
        node=settings.node.name,
        edge=parts.edge,
        gate=parts.gate,
        readiness=parts.readiness,
        clock=parts.clock,
        tally=parts.tally,
        limits=settings.limits,
        settings=settings.fast_lane,
        log=told,
        begin_span=None if tracer is None else tracer.begin,
    )
    return Service(
        node=ways.node,
        edge=parts.edge,
        gate=parts.gate,
        limits=settings.limits,
        long_text=settings.long_text,
        freshness=settings.cache.freshness,
        readiness=parts.readiness,
        clock=parts.clock,
        tally=parts.tally,
        sockets=Sockets(_means(parts, ways), parts.gate, parts.readiness),
        report=_reporting(parts, told),
        lane=Lane(ways) if settings.fast_lane.enabled else None,
        heads=StreamHeads(ways.node, settings.cache.freshness.ttl_s),
        audience=_audience(parts),
        begin_span=ways.begin_span,
    )


def _means(parts: Parts, ways: Ways) -> Means:
    """What WebSocket sessions share."""
    settings = parts.settings
    return Means(
        edge=parts.edge,
        settings=settings.websockets,
        text_characters=settings.limits.text_characters,
        long_text=settings.long_text,
        clock=parts.clock,
        report=_reporting(parts, ways.log),
        begin_span=ways.begin_span,
        audience=_audience(parts),
    )


def _audience(parts: Parts) -> Audience:
    return Audience(parts.clock, parts.lag, parts.settings.slo.cushion_s)


def _reporting(parts: Parts, told: Callable[[Outcome], None] | None) -> Callable[[Outcome], None]:
    def report(outcome: Outcome) -> None:
        parts.tally.add(outcome, parts.clock.wall())
        if told is not None:
            told(outcome)

    return report
