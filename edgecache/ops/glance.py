"""All that fits on one screen, for the dashboard and `edgecache top`: rates and quantiles of late, and totals. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from edgecache.cache.status import WARM_UP
from edgecache.measures.ladder import SHOWN_S, Spread, merged, place
from edgecache.ops.families import PREFIX
from edgecache.ops.gathering import Counts, Name
from edgecache.ops.windows import Window

#: What the cache did, to what it is called where there is little room.
GROUPS = {
    "hit": ("hit_memory", "hit_redis"),
    "joined": ("collapsed",),
    "miss": ("miss", "bypass"),
    "stale": ("stale",),
    "error": ("error",),
}
_SPOKEN = frozenset(result for group in GROUPS.values() for result in group)
_FIRST_BYTE, _REQUESTS = PREFIX + "http_time_to_first_byte_seconds", PREFIX + "http_requests"


@dataclass(frozen=True, slots=True)
class Glance:
    """All counts, and the window of what is told as a rate."""

    counts: Counts
    window: Window
    now: float
    #: The names of each metric, which are asked for again and again.
    _named: dict[str, list[Name]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.counts:
            self._named.setdefault(name[0], []).append(name)

    def names(self, metric: str, chosen: Callable[[Name], bool]) -> list[Name]:
        """Of this metric those that are chosen."""
        return [name for name in self._named.get(PREFIX + metric, ()) if chosen(name)]

    def lately(self, metric: str, chosen: Callable[[Name], bool] = lambda _: True) -> float:
        """How much came within the window."""
        return sum(self.window.figure(name, self.counts, self.now) for name in self.names(metric, chosen))

    def total(self, metric: str, chosen: Callable[[Name], bool] = lambda _: True) -> float:
        """How much there is, or was since counting began."""
        figures = (self.counts[name] for name in self.names(metric, chosen))
        return sum(each for each in figures if not isinstance(each, Spread))

    def times(self, metric: str, chosen: Callable[[Name], bool] = lambda _: True) -> Spread:
        """The times of the window."""
        return merged(self.window.spread(name, self.counts, self.now) for name in self.names(metric, chosen))


def glance(seen: Glance) -> Mapping[str, object]:
    """All of it, by name."""
    span_s = max(seen.window.covers_s(seen.now), 1e-9)
    results = {result: _waited_for(seen, result) for result in sorted(_SPOKEN)}
    spoken = sum(many for result, many in results.items() if result != "error")
    return {
        "window_s": round(span_s, 1),
        "workers": int(seen.total("workers")),
        "mode": _mode(seen),
        "connections": int(seen.total("http_connections")),
        "requests_per_s": round(sum(results.values()) / span_s, 2),
        "results_per_s": {result: round(many / span_s, 3) for result, many in results.items()},
        "hit_ratio": _ratios(results, spoken),
        "first_byte_ms": {group: _quantiles(_first_bytes(seen, group)) for group in ("hit", "joined", "miss")},
        "distribution": _distribution(seen),
        "saved": _saved(seen, span_s),
        "tiers": {tier: _tier(seen, tier) for tier in ("memory", "redis")},
        "fills": {
            "in_flight": int(seen.total("fills_in_flight")),
            "held_bytes": int(seen.total("fill_held_bytes")),
            "per_s": round(seen.lately("fills") / span_s, 3),
        },
        "streams": _streams(seen),
        "lag_ms": _quantiles(seen.times("event_loop_lag_seconds")),
        "resident_bytes": int(_of_process(seen, "process_resident_memory_bytes")),
        "open_fds": int(_of_process(seen, "process_open_fds")),
    }


def _mode(seen: Glance) -> Mapping[str, object]:
    """The daemon's mode, and for how many workers there is which cause."""
    names = [name[1] for name in seen.names("mode", lambda name: bool(seen.counts[name]))]
    causes = {name[1]: figure for name in seen.names("mode_causes", lambda _: True) if (figure := seen.counts[name])}
    return {"now": names[0] if names else "normal", "causes": causes}


def _by(seen: Glance, metric: str, at: int, label: str) -> float:
    return seen.lately(metric, lambda name: name[at] == label)


def _waited_for(seen: Glance, result: str) -> float:
    return seen.lately("http_requests", lambda name: name[4] == result and name[1] != WARM_UP)


def _ratios(results: Mapping[str, float], spoken: float) -> Mapping[str, float | None]:
    """Of all that was spoken, what came from where; joined: what others' syntheses were shared with."""
    parts = {"memory": ("hit_memory",), "redis": ("hit_redis",), "joined": ("collapsed",)}
    shares = {part: sum(results[result] for result in whose) for part, whose in parts.items()}
    shares["hit"] = shares["memory"] + shares["redis"]
    return {part: round(many / spoken, 4) if spoken else None for part, many in shares.items()}


def _first_bytes(seen: Glance, group: str) -> Spread:
    return seen.times("http_time_to_first_byte_seconds", lambda name: name[2] in GROUPS[group] and name[1] != WARM_UP)


def _quantiles(spread: Spread) -> Mapping[str, float | None]:
    told = {f"p{round(share * 100)}": spread.quantile(share) for share in (0.5, 0.95, 0.99)}
    return {name: None if value is None else round(value * 1000, 3) for name, value in told.items()} | {
        "events": spread.count
    }


def _distribution(seen: Glance) -> list[Mapping[str, object]]:
    """First bytes by upper bound, each bucket for itself; `up_to_ms` of the last is None."""
    spreads = {group: _first_bytes(seen, group) for group in ("hit", "joined", "miss")}
    rows: list[Mapping[str, object]] = []
    before = 0
    for bound_s in (*SHOWN_S, None):
        rung = None if bound_s is None else place(bound_s) + 1
        counts = {group: sum(spread.buckets[before:rung]) for group, spread in spreads.items()}
        rows.append({"up_to_ms": None if bound_s is None else bound_s * 1000, **counts})
        before = rung or 0
    return rows


def _saved(seen: Glance, span_s: float) -> Mapping[str, float]:
    return {
        "syntheses": int(seen.total("saved_syntheses")),
        "characters": int(seen.total("saved_characters")),
        "speech_s": round(seen.total("saved_speech_seconds"), 3),
        "syntheses_per_s": round(seen.lately("saved_syntheses") / span_s, 3),
        "speech_s_per_s": round(seen.lately("saved_speech_seconds") / span_s, 3),
    }


def _tier(seen: Glance, tier: str) -> Mapping[str, float]:
    asks = {name[2]: seen.counts[name] for name in seen.names("cache_requests", lambda name: name[1] == tier)}
    asked = {result: int(each) for result, each in asks.items() if isinstance(each, int | float)}
    sizes = {
        what: int(seen.total(f"cache_{what}", lambda name: name[1] == tier))
        for what in ("entries", "size_bytes", "capacity_bytes")
    }
    return {**asked, **sizes}


def _streams(seen: Glance) -> Mapping[str, object]:
    """Streams of the window, and whose fault their gaps were."""
    dry = {cause: int(_by(seen, "stream_underruns", 3, cause)) for cause in ("edge", "cluster", "client")}
    return {"played": int(seen.lately("streams")), "underruns": dry}


def _of_process(seen: Glance, metric: str) -> float:
    figure = seen.counts.get((metric,), 0.0)
    return 0.0 if isinstance(figure, Spread) else figure
