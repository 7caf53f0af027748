"""What becomes of packets between two places: in time, in order unless their link says otherwise, and counted."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.demo.links import Fared, Link, Transit, Way, spelled

links = st.builds(
    Link,
    rtt_ms=st.floats(0, 400),
    jitter_ms=st.floats(0, 50),
    loss=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    reorder=st.booleans(),
    cut=st.booleans(),
)
#: Packets as they set out: how much later than the one before, and how large; or the link that holds from then on.
departures = st.lists(st.one_of(st.tuples(st.floats(0, 0.1), st.integers(1, 1500)), links), min_size=1, max_size=60)


@given(link=links)
def test_a_link_is_read_as_it_was_spelled(link: Link) -> None:
    assert Link(**spelled(link)) == link


@pytest.mark.parametrize("wrong", [{"rtt_ms": -1}, {"jitter_ms": -0.1}, {"loss": 1.1}, {"loss": -0.1}])
def test_there_are_no_such_links(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="no such link"):
        Link(**wrong)  # type: ignore[arg-type]


@given(link=links, departures=departures, room=st.integers(1000, 20_000))
def test_packets_take_their_time_keep_their_order_and_are_all_accounted_for(
    link: Link, departures: Sequence[tuple[float, int] | Link], room: int
) -> None:
    way = Way(link, "seed", room)
    transit, now, sent = Transit({(0, 1): way}), 0.0, 0
    left: dict[bytes, tuple[float, Link]] = {}
    arrived: list[tuple[float, bytes]] = []

    def take() -> None:
        for due_s, whither, packet in transit.arrived(now):
            assert due_s <= now, "before its time"
            assert whither == 1
            arrived.append((due_s, packet))

    for departure in departures:
        if isinstance(departure, Link):
            way.link = departure
            continue
        now += departure[0]
        take()
        packet = sent.to_bytes(4, "big").ljust(departure[1], b".")
        sent += 1
        left[packet] = now, way.link
        transit.leaves(0, 1, packet, now)
        assert way.on_it_bytes <= room
    links_since = {each for _, each in left.values()} | {way.link}
    now += 10
    take()

    assert way.on_it_bytes == 0
    assert transit.next_due_s is None
    fared = way.fared
    assert fared.packets + fared.lost + fared.cut + fared.full == sent
    assert (fared.packets, fared.bytes) == (len(arrived), sum(len(packet) for _, packet in arrived))
    for due_s, packet in arrived:
        left_s, held = left[packet]
        assert due_s >= left_s + held.one_way_s - 1e-9
    if not any(each.reorder for each in links_since):
        assert [packet for _, packet in arrived] == sorted((packet for _, packet in arrived), key=lambda each: each[:4])


def test_order_is_kept_again_when_a_link_no_longer_lets_packets_overtake() -> None:
    way = Way(Link(rtt_ms=200, jitter_ms=100, reorder=True))
    overtaken = max(way.due_s(1, 0.0) or 0 for _ in range(20))
    way.link = Link(rtt_ms=2)
    assert way.due_s(1, 0.001) == overtaken


def test_nothing_that_is_on_the_way_arrives_over_a_link_that_was_cut() -> None:
    way = Way(Link(rtt_ms=100))
    transit = Transit({(0, 1): way})
    transit.leaves(0, 1, b"x", 0.0)
    way.link = Link(cut=True)
    assert list(transit.arrived(1.0)) == []
    assert way.fared == Fared(cut=1)


def test_there_is_no_way_to_a_place_that_is_not_there() -> None:
    transit = Transit({})
    transit.leaves(0, 7, b"x", 0.0)
    assert transit.next_due_s is None


@pytest.mark.parametrize(("loss", "low", "high"), [(0.0, 0, 0), (0.03, 200, 400), (1.0, 10_000, 10_000)])
def test_so_many_are_lost(loss: float, low: int, high: int) -> None:
    way = Way(Link(loss=loss), "seed")
    for _ in range(10_000):
        if way.due_s(1, 0.0) is not None:
            way.arrives(1)
    assert low <= way.fared.lost <= high


def test_the_same_seed_is_the_same_fate() -> None:
    def fate(seed: str) -> list[float | None]:
        way = Way(Link(rtt_ms=20, jitter_ms=10, loss=0.2, reorder=True), seed)
        return [way.due_s(100, n / 1000) for n in range(200)]

    assert fate("a") == fate("a") != fate("b")
