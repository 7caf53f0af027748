"""How every promise stands: which events are whose, what they came to in each window, and what that is called. Pure.

An objective is measured for each subject apart, so that an operator sees whose fault a gap is: `hit`, `joined` and `miss`
by what the cache did, `edge` and `client` by cause, `cluster:NAME` for what a cluster alone took. Definitions, with
formulas: docs/slo.md.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from edgecache.cache.status import WARM_UP
from edgecache.measures.ladder import Spread
from edgecache.ops.families import PREFIX
from edgecache.ops.gathering import Counts, Figure, Name
from edgecache.ops.objectives import Measured, Promises, ShareGoal, Standing, State, TimeGoal
from edgecache.ops.windows import Window

#: The windows, by what they are called.
SPANS_S = {"5m": 300.0, "1h": 3600.0, "6h": 21600.0, "3d": 259200.0}
#: The one that states go by.
NOW = "5m"
_FIRST_BYTE, _JITTER, _UNDERRUNS, _STARTUP = "first_byte", "jitter", "underruns", "startup"
#: The share of events that has to be within the target; of under-runs the target itself says it.
SHARES = {_FIRST_BYTE: 0.95, _JITTER: 0.99, _STARTUP: 0.99}
#: What the cache did, in the words of its metrics, to who is judged by it.
_SUBJECTS = {"hit_memory": "hit", "hit_redis": "hit", "collapsed": "joined", "miss": "miss", "bypass": "miss"}
_TOTAL, _BAD = "total", "bad"


def sorted_out(counts: Counts) -> Counts:
    """The events of every objective and subject, by (objective, subject), or (objective, subject, total or bad)."""
    events: dict[Name, Figure] = {}
    for name, figure in counts.items():
        for whose, amount in _whose(name, figure):
            before = events.get(whose)
            if isinstance(amount, Spread):
                whole = before if isinstance(before, Spread) else Spread()
                whole.merge(amount)
                events[whose] = whole
            else:
                events[whose] = amount + (before if isinstance(before, int | float) else 0)
    return events


def _whose(name: Name, figure: Figure) -> Iterator[tuple[Name, Figure]]:
    """To whom these events belong."""
    match (name[0].removeprefix(PREFIX), *name[1:]):
        case ("http_time_to_first_byte_seconds", route, cache) if cache in _SUBJECTS and route != WARM_UP:
            yield (_FIRST_BYTE, _SUBJECTS[cache]), figure
        case ("cluster_first_audio_seconds", cluster):
            yield (_FIRST_BYTE, f"cluster:{cluster}"), figure
        case ("stream_jitter_seconds", cluster, cache, cause) if cache in _SUBJECTS:
            yield (_JITTER, _SUBJECTS[cache]), figure
            for subject, causes in _causes(cluster):
                yield (_JITTER, subject), figure if cause in causes else _in_time(figure)
        case ("streams", cluster, cache) if cache in _SUBJECTS:
            yield (_UNDERRUNS, _SUBJECTS[cache], _TOTAL), figure
            for subject, _ in _causes(cluster):
                yield (_UNDERRUNS, subject, _TOTAL), figure
        case ("stream_underruns", cluster, cache, cause) if cache in _SUBJECTS:
            yield (_UNDERRUNS, _SUBJECTS[cache], _BAD), figure
            for subject, causes in _causes(cluster):
                if cause in causes:
                    yield (_UNDERRUNS, subject, _BAD), figure
        case ("connection_startup_seconds", part):
            yield (_STARTUP, part), figure
        case ("cluster_connect_seconds", cluster):
            yield (_STARTUP, f"cluster:{cluster}"), figure


def _causes(cluster: str) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Who is judged by streams of this cluster, and by which causes."""
    return (f"cluster:{cluster}", ("cluster",)), ("edge", ("edge",)), ("client", ("client",))


def _in_time(figure: Figure) -> Figure:
    """The same events, none of which was late by this one's fault."""
    if not isinstance(figure, Spread):
        return figure
    on_time = Spread()
    on_time.buckets[0] = figure.count
    return on_time


@dataclass(frozen=True, slots=True)
class Row:
    """One objective of one subject. burning: how many times as fast as it may the budget is spent, by window."""

    slo: str
    subject: str
    state: State
    steps: tuple[float, float, float]
    share: float
    windows: Mapping[str, Measured]
    burning: Mapping[str, float | None]
    #: All events since counting began, and the good ones among them.
    total: int
    good: int

    def told(self) -> Mapping[str, object]:
        """The same as a mapping, for JSON: times in milliseconds, shares as they are."""
        factor = 1.0 if self.slo == _UNDERRUNS else 1000.0
        unit = "ratio" if self.slo == _UNDERRUNS else "ms"
        return {
            "slo": self.slo,
            "subject": self.subject,
            "state": self.state.value,
            "unit": unit,
            "good_share": self.share,
            **dict(zip(("target", "warning", "critical"), (step * factor for step in self.steps), strict=True)),
            "windows": {
                span: {
                    "value": None if each.value is None else round(each.value * factor, 6),
                    "events": each.total,
                    "good": each.good,
                    "burn_rate": self.burning[span],
                }
                for span, each in self.windows.items()
            },
        }


@dataclass(slots=True)
class Watch:
    """All promises over time. began_s: when counting began."""

    promises: Promises
    began_s: float
    _windows: dict[str, Window] = field(init=False)
    _standings: dict[tuple[str, str], Standing] = field(default_factory=dict)
    _events: Counts = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._windows = {name: Window(span_s, self.began_s) for name, span_s in SPANS_S.items()}

    def observe(self, counts: Counts, now: float) -> Iterator[Row]:
        """How all stand, with what is counted now. A row at a time, for who has something else to do between."""
        self._events = sorted_out(counts)
        for window in self._windows.values():
            window.mark(self._events, now)
        for slo, subject in sorted({(name[0], name[1]) for name in self._events}, key=_order):
            yield self._row(slo, subject, now)

    def covers_s(self, now: float) -> dict[str, float]:
        """How far back each window goes."""
        return {name: window.covers_s(now) for name, window in self._windows.items()}

    def goal(self, slo: str) -> TimeGoal | ShareGoal:
        """The thresholds of an objective."""
        promises = self.promises
        goals: dict[str, TimeGoal | ShareGoal] = {
            _FIRST_BYTE: promises.first_byte,
            _JITTER: promises.jitter,
            _UNDERRUNS: promises.underruns,
            _STARTUP: promises.startup,
        }
        return goals[slo]

    def share(self, slo: str) -> float:
        """The share of an objective's events that has to be good."""
        return 1 - self.promises.underruns.target if slo == _UNDERRUNS else SHARES[slo]

    def _row(self, slo: str, subject: str, now: float) -> Row:
        steps, share = self.goal(slo).steps, self.share(slo)
        measured = {name: self._measured(slo, subject, window, now) for name, window in self._windows.items()}
        standing = self._standings.get((slo, subject))
        if standing is None:
            standing = Standing(steps, self.promises.least_events, self.promises.hold_s)
            self._standings[slo, subject] = standing
        whole = self._measured(slo, subject, None, now)
        return Row(
            slo=slo,
            subject=subject,
            state=standing.observe(measured[NOW], now),
            steps=steps,
            share=share,
            windows=measured,
            burning={name: burning(each, share) for name, each in measured.items()},
            total=whole.total,
            good=whole.good,
        )

    def _measured(self, slo: str, subject: str, window: Window | None, now: float) -> Measured:
        """Within a window, or since counting began."""
        steps = self.goal(slo).steps
        if slo == _UNDERRUNS:
            total, bad = (self._figure((slo, subject, part), window, now) for part in (_TOTAL, _BAD))
            value = bad / total if total else None
            return Measured(value, int(total - bad), int(total), (int(bad), int(bad), int(bad)))
        events = self._spread((slo, subject), window, now)
        target, warning, critical = (events.within(step) for step in steps)
        total_events = events.count
        beyond = (total_events - target, total_events - warning, total_events - critical)
        return Measured(events.quantile(SHARES[slo]), target, total_events, beyond)

    def _spread(self, name: Name, window: Window | None, now: float) -> Spread:
        if window is not None:
            return window.spread(name, self._events, now)
        found = self._events.get(name)
        return found if isinstance(found, Spread) else Spread()

    def _figure(self, name: Name, window: Window | None, now: float) -> float:
        if window is not None:
            return window.figure(name, self._events, now)
        found = self._events.get(name, 0.0)
        return 0.0 if isinstance(found, Spread) else found


def burning(measured: Measured, share: float) -> float | None:
    """How many times as fast as it may the budget is spent; 1: it just lasts. None: there were no events."""
    if not measured.total:
        return None
    return round((measured.total - measured.good) / measured.total / (1 - share), 3)


def _order(name: tuple[str, str]) -> tuple[int, int, str]:
    slos = (_FIRST_BYTE, _JITTER, _UNDERRUNS, _STARTUP)
    subjects = ("hit", "joined", "miss", "edge", "client")
    slo, subject = name
    return slos.index(slo), subjects.index(subject) if subject in subjects else len(subjects), subject
