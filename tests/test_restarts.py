"""When a dead worker is started again, and what part of the whole each worker gets."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.clusters.cluster import Cluster
from edgecache.ops.restarts import LAST_S, PROVEN_S, Restarts
from edgecache.portions import portion, processes
from edgecache.settings import Settings


@pytest.mark.parametrize(
    ("lives_s", "waits_s"),
    [
        ([100.0], [0.0]),
        ([100.0, 100.0, 100.0], [0.0, 0.0, 0.0]),
        ([0.1], [0.0]),
        ([0.1, 0.1, 0.1, 0.1], [0.0, 0.5, 1.0, 2.0]),
        ([0.1] * 20, [0.0, 0.5, 1, 2, 4, 8, 16] + [LAST_S] * 13),
        ([0.1, 0.1, PROVEN_S, 0.1, 0.1], [0.0, 0.5, 0.0, 0.0, 0.5]),
    ],
)
def test_who_does_not_live_long_waits_longer(lives_s: list[float], waits_s: list[float]) -> None:
    restarts = Restarts()
    assert [restarts.died(lived_s) for lived_s in lives_s] == waits_s
    assert restarts.count == len(lives_s)


SETTINGS = Settings(clusters=(Cluster(name="a", url="http://x"), Cluster(name="b", url="http://y", max_in_flight=1)))


def test_one_worker_has_all() -> None:
    assert portion(SETTINGS, 1) is SETTINGS


@given(st.integers(2, 64))
def test_several_have_no_more_than_all_together_and_each_can_work(workers: int) -> None:
    part = portion(SETTINGS, workers)
    assert part.cache.memory.max_size_bytes * workers <= SETTINGS.cache.memory.max_size_bytes
    assert part.fills.max_held_bytes >= part.fills.max_rendering_bytes
    for of_part, of_all in (
        (part.fills.max_flights, SETTINGS.fills.max_flights),
        (part.limits.connections, SETTINGS.limits.connections),
        (part.pool.max_connections, SETTINGS.pool.max_connections),
        *zip(
            (each.max_in_flight for each in part.clusters),
            (each.max_in_flight for each in SETTINGS.clusters),
            strict=True,
        ),
    ):
        assert 1 <= of_part <= of_all
        assert of_part * workers < of_all + workers


def test_auto_is_one_for_each_core_we_may_use() -> None:
    assert processes("auto") == len(os.sched_getaffinity(0))
    assert processes(3) == 3
