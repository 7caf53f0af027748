"""Counts of several workers as one: what adds up, what does not, and that no counter falls when a worker does."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.measures.ladder import Spread
from edgecache.ops import gathering
from edgecache.ops.families import FAMILIES, Kind, Merge, reference
from edgecache.ops.gathering import Counted, Counts, Gathering, packed, unpacked

REQUESTS = ("edgecache_http_requests", "/v1/tts", "POST", "200", "miss")
WORKERS, LAG = ("edgecache_workers",), ("edgecache_event_loop_lag_seconds",)
RTT = ("edgecache_upstream_rtt_seconds", "syd", "syd")


def counts(requests: float, *lags_s: float, rtt_s: float = 0.02) -> Counts:
    lag = Spread()
    for each in lags_s:
        lag.add(each)
    return {REQUESTS: requests, WORKERS: 1.0, LAG: lag, RTT: rtt_s}


def test_what_adds_up_and_what_does_not() -> None:
    told = Gathering().take({"a": counts(3, 0.1, rtt_s=0.03), "b": counts(4, 0.2, 0.3, rtt_s=0.02)})

    assert (told[REQUESTS], told[WORKERS], told[RTT]) == (7, 2, 0.02)
    lag = told[LAG]
    assert isinstance(lag, Spread)
    assert lag.count == 3
    assert lag.total_s == pytest.approx(0.6)


def test_a_worker_that_died_still_counts_but_is_no_worker() -> None:
    gathering_ = Gathering()
    gathering_.take({"a": counts(3, 0.1), "b": counts(4)})
    told = gathering_.take({"b": counts(5), "c": counts(1)})

    assert (told[REQUESTS], told[WORKERS]) == (9, 2)
    assert isinstance(lag := told[LAG], Spread)
    assert lag.count == 1


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9), st.booleans()), max_size=60))
def test_no_counter_ever_falls(events: list[tuple[int, int, bool]]) -> None:
    """Workers count on, miss a scrape, or are replaced by one with a new name and nothing counted."""
    gathering_, alive, named, before = Gathering(), dict.fromkeys(range(6), 0), dict.fromkeys(range(6), 0), 0.0
    for worker, more, died in events:
        alive[worker] += more
        answering = {f"{each}-{named[each]}": counts(many) for each, many in alive.items() if each != worker or more}
        if died:
            named[worker], alive[worker] = named[worker] + 1, 0
        told = gathering_.take(answering)[REQUESTS]
        assert isinstance(told, int | float)
        assert told >= before
        before = told


def test_rule_7_workers_that_are_long_gone_are_one_sum() -> None:
    gathering_, replaced = Gathering(), gathering.APART + 40
    for n in range(replaced):
        told = gathering_.take({f"w{n}": counts(2, 0.1)})

    assert told[REQUESTS] == 2 * replaced
    assert len(gathering_._last) == gathering.APART + 1


def test_what_is_packed_is_unpacked_over_msgpack_and_strangers_are_left_out() -> None:
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(packed(counts(3, 0.1))))
    stranger = [["edgecache_of_tomorrow"], 1.0], [["edgecache_workers", "x"], 1.0], [list(LAG), [1.0, [0, 1]]]

    assert unpacked([*sent, *stranger]) == counts(3, 0.1)


def test_only_metrics_in_the_list_can_be_counted() -> None:
    with pytest.raises(KeyError):
        Counted().add("edgecache_unheard_of", 1.0)
    with pytest.raises(AssertionError):
        Counted().add("edgecache_workers", 1.0, "a label too many")


def test_names_are_as_prometheus_wants_them() -> None:
    for family in FAMILIES.values():
        assert family.name.startswith(("edgecache_", "process_"))
        assert not family.name.endswith("_total")
        assert family.kind is not Kind.HISTOGRAM or family.name.endswith("_seconds")
        assert family.kind is Kind.GAUGE or family.merge is Merge.SUM, "what grows adds up"
        assert family.doc.endswith((".", "0."))


def test_the_documentation_of_metrics_is_current() -> None:
    written = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text("utf-8")

    assert written.endswith(f"-->\n\n{reference()}"), "write its table anew: the command stands above it"
