"""What several workers tell, as one."""

import io
from typing import Any

import pytest

from edgecache.commands.clusters import show
from edgecache.ops import whole

MERGED: list[tuple[str, list[dict[str, Any]], dict[str, Any]]] = [
    ("one worker", [{"a": 1, "b": "x"}], {"a": 1, "b": "x"}),
    ("numbers add up", [{"a": 1, "b": 0.5}, {"a": 2, "b": 1.5}], {"a": 3, "b": 2.0}),
    ("but not ages", [{"uptime_s": 1.5}, {"uptime_s": 9.0}], {"uptime_s": 9.0}),
    ("truths", [{"draining": False}, {"draining": True}], {"draining": True}),
    ("texts alike", [{"node": "syd"}, {"node": "syd"}], {"node": "syd"}),
    ("texts that differ", [{"state": "open"}, {"state": "closed"}], {"state": "closed, open"}),
    ("what one has nothing to say of", [{"failure": ""}, {"failure": "OOM"}], {"failure": "OOM"}),
    ("by name", [{"fills": {"led": 1}}, {"fills": {"led": 2, "new": 1}}], {"fills": {"led": 3, "new": 1}}),
    ("what one does not know", [{"failure": None}, {"failure": "OOM"}], {"failure": "OOM"}),
    ("what nobody knows", [{"failure": None}, {"failure": None}], {"failure": None}),
    ("lists", [{"said": [1]}, {"said": [2]}], {"said": [1, 2]}),
]


@pytest.mark.parametrize(("told", "due"), [row[1:] for row in MERGED], ids=[row[0] for row in MERGED])
def test_what_becomes_of_each_kind_of_value(told: list[dict[str, Any]], due: dict[str, Any]) -> None:
    assert whole.merged(told) == due


def row(result: str, exchanges: int, mean_ms: float) -> dict[str, Any]:
    kind = {"route": "/v1/tts", "method": "POST", "status": 200, "result": result}
    return {**kind, "exchanges": exchanges, "broken": 1, "sent_bytes": 10, "first_byte_ms_mean": mean_ms}


def test_requests_of_one_kind_are_one_row_and_means_are_weighted() -> None:
    rows = [[row("hit", 1, 10.0), row("miss", 1, 7.0)], [row("hit", 3, 2.0)]]
    told = [{"uptime_s": 1.0, "requests": each} for each in rows]
    said = whole.status(told)
    assert (said["workers"], [each["result"] for each in said["requests"]]) == (2, ["hit", "miss"])
    assert said["requests"][0] == row("hit", 4, 4.0) | {"broken": 2, "sent_bytes": 20}


def upstream(state: str, in_flight: int, rtt_ms: float | None) -> dict[str, Any]:
    counts = {"in_flight": in_flight, "max_in_flight": 8, "chosen": 1, "failures": 0}
    means = {"share": 0.5, "error_rate": 0.0, "warmth": 1.0}
    measures = {"rtt_ms": rtt_ms, "rtt_spread_ms": 1.0, "first_byte_ms": None, "first_audio_ms": None}
    rest = {"faults": {state: 1}, "real_time_factor": None, "current": state == "up", "why": state}
    return {"name": "syd", "state": state, **counts, **means, **measures, **rest}


def test_an_upstream_is_told_as_the_worker_sees_it_that_thinks_worst_of_it() -> None:
    (told,) = whole.upstreams([upstream("up", 2, 10.0), upstream("ejected", 1, 20.0), upstream("up", 0, None)])
    assert (told["state"], told["why"], told["current"]) == ("ejected", "ejected", True)
    assert told["faults"] == {"up": 2, "ejected": 1}
    assert (told["in_flight"], told["max_in_flight"], told["rtt_ms"], told["share"]) == (3, 24, 15.0, 0.5)


@pytest.mark.parametrize(("share", "pointed_at"), [(0.5, True), (0.0, False)])
def test_the_table_of_clusters_points_at_none_that_gets_nothing(share: float, pointed_at: bool) -> None:
    """A worker that asked nobody since still has it for its own, though it is ejected."""
    rest = {"drained": False, "back_in_s": 0.0, "last_fault": ""}
    (told,) = whole.upstreams([upstream("up", 0, 10.0) | rest, upstream("ejected", 0, 10.0) | rest])
    said = io.StringIO()
    show({"upstreams": [told | {"share": share}]}, said, as_json=False)
    assert ("▶" in said.getvalue()) is pointed_at


@pytest.mark.parametrize(
    ("told", "due"),
    [
        ([{"clusters": "none"}], {"clusters": "none"}),
        ([{"clusters": "none"}, {"clusters": ""}], {"clusters": ""}),
        ([{"clusters": "none"}, {"clusters": "none"}], {"clusters": "none"}),
    ],
    ids=["alone", "another is well", "nobody is"],
)
def test_one_worker_that_is_ready_is_enough(told: list[dict[str, str]], due: dict[str, str]) -> None:
    assert whole.checks(told) == due


def test_counts_of_the_dead_are_kept_and_nothing_of_how_things_stood() -> None:
    fills = {"led": 2, "under_way": 1, "unstored": {"unframed": 1}}
    told = {
        "uptime_s": 3.0,
        "requests": [row("hit", 1, 10.0)],
        "fills": fills,
        "tiers": {"memory": {"recordings": 3}, "redis": "off"},
        "fast_lane": {"answered": 5, "requests": 7},
        "record_mismatches": 0,
        "stale_served": 1,
        "connections": 4,
    }
    dead = whole.counted([whole.counted([told]), told])
    assert dead["fills"] == {"led": 4, "unstored": {"unframed": 2}}
    assert (dead["fast_lane"], dead["tiers"]) == ({"answered": 10}, {"redis": "off"})
    all_told = whole.status([told, dead])
    assert (all_told["workers"], all_told["connections"], all_told["stale_served"]) == (1, 4, 3)
    assert all_told["fills"]["under_way"] == 1
    assert all_told["tiers"] == {"memory": {"recordings": 3}, "redis": "off"}
    assert all_told["requests"][0]["exchanges"] == 3
