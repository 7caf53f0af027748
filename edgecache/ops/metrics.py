"""`GET /metrics`: the daemon's counts as Prometheus reads them, by its own client library.

It knows no part: what there is to tell is in `ops.families`, and what it came to in `ops.gathering`. Rendering takes
milliseconds, so whoever calls it does so beside the event loop.
"""

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from edgecache.measures.ladder import BOUNDS_S, SHOWN_S, Spread, place
from edgecache.ops.families import FAMILIES, PREFIX, Family, Kind
from edgecache.ops.gathering import Counts, Figure, Name
from edgecache.ops.objectives import State
from edgecache.ops.promises import Row

_SHOWN = tuple((place(bound_s), bound_s) for bound_s in SHOWN_S)


class Collected(Collector):
    """These counts, for a registry of prometheus-client's."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        """Every metric that there is anything to say of, in the order of the list."""
        alike: dict[str, list[tuple[Name, Figure]]] = {}
        for (name, *labels), figure in self._counts.items():
            alike.setdefault(name, []).append((tuple(labels), figure))
        for name, family in FAMILIES.items():
            if name in alike:
                yield _metric(family, sorted(alike[name], key=lambda each: each[0]))


def _metric(family: Family, figures: list[tuple[Name, Figure]]) -> Metric:
    if family.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(family.name, family.doc, labels=family.labels)
        for labels, figure in figures:
            if isinstance(figure, Spread):
                histogram.add_metric(labels, list(_buckets(figure)), figure.total_s)
        return histogram
    made = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
    plain = made(family.name, family.doc, labels=family.labels)
    for labels, figure in figures:
        if not isinstance(figure, Spread):
            plain.add_metric(labels, figure)
    return plain


def _buckets(spread: Spread) -> Iterator[tuple[str, float]]:
    sums = list(accumulate(spread.buckets))
    for bucket, bound_s in _SHOWN:
        yield repr(bound_s), sums[bucket]
    yield "+Inf", sums[len(BOUNDS_S)]


def of_promises(rows: Iterable[Row]) -> Counts:
    """How the promises stand, as counts."""
    told: dict[Name, Figure] = {}
    for row in rows:
        whose = (row.slo, row.subject)
        told[PREFIX + "slo_good", *whose] = float(row.good)
        told[PREFIX + "slo_events", *whose] = float(row.total)
        told[PREFIX + "slo_target_ratio", row.slo] = row.share
        for state in State:
            told[PREFIX + "slo_state", *whose, state.value] = float(state is row.state)
    return told


def rendered(counts: Counts, accept: str) -> tuple[bytes, str]:
    """The body and its media type: OpenMetrics for who asks for it, else Prometheus's own text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collected(counts))
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type
