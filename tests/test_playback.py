"""Imagined players against traces made by hand: when they wait, when they run dry, and who is to blame."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.fill.flight import Flight, Head, Listener
from edgecache.measures.lag import Lag
from edgecache.measures.playback import LEAST_GAP_S, Cause, Playback, Played
from tests.test_flight import KEY

CUSHION_S = 0.1


class Piece(NamedTuple):
    """Bytes handed over at this time that speak so long, how long the write took, when they came, and the lag so far."""

    at_s: float
    audio_s: float
    blocked_s: float = 0.0
    arrived_s: float | None = None
    lag_s: float = 0.0


def played(*pieces: Piece, cushion_s: float = CUSHION_S) -> Played:
    playback = Playback(cushion_s)
    for each in pieces:
        arrived_s = each.at_s if each.arrived_s is None else each.arrived_s
        playback.hand(each.at_s, each.audio_s, arrived_s, each.lag_s)
        playback.taken(each.at_s + each.blocked_s)
    told = playback.played()
    assert told is not None
    return told


def waits(told: Played) -> dict[str, float]:
    return {cause.value: round(seconds, 3) for cause, seconds in told.jitter_s.items()}


def silences(told: Played) -> dict[str, float]:
    return {cause.value: round(seconds, 3) for cause, seconds in told.silent_s.items()}


TRACES = {
    "all at once": ([Piece(0, 1), Piece(0, 1)], {}, {}),
    "in gusts, faster than it is heard": ([Piece(0, 0.5), Piece(0, 0.5), Piece(0.9, 1), Piece(1.9, 1)], {}, {}),
    "paced as it is heard": ([Piece(n / 64, 1 / 64) for n in range(50)], {}, {}),
    "late within the cushion": ([Piece(0, 0.1), Piece(0, 0.1), Piece(0.23, 0.1)], {"cluster": 0.03}, {"cluster": 0.03}),
    "late while the cushion is gathered": ([Piece(0, 0.05), Piece(0.08, 0.2)], {"cluster": 0.03}, {}),
    "shorter than a gap": ([Piece(0, 0.1), Piece(0.104, 0.1)], {"cluster": 0.004}, {}),
    "late, and playing goes on from there": (
        [Piece(0, 0.2), Piece(0.5, 0.2), Piece(0.7, 0.2)],
        {"cluster": 0.3},
        {"cluster": 0.3},
    ),
    "late twice": ([Piece(0, 0.2), Piece(0.3, 0.1), Piece(0.5, 0.1)], {"cluster": 0.2}, {"cluster": 0.2}),
    "the client took no more": (
        [Piece(0, 0.2, blocked_s=0.9), Piece(1.0, 0.2)],
        {"client": 0.8},
        {"client": 0.8},
    ),
    "it lay here": ([Piece(0, 0.2), Piece(1.0, 0.2, arrived_s=0.3)], {"edge": 0.8}, {"edge": 0.8}),
    "the loop lagged": ([Piece(0, 0.2), Piece(1.0, 0.2, lag_s=0.9)], {"edge": 0.8}, {"edge": 0.8}),
    "the loop lagged a little": ([Piece(0, 0.2), Piece(1.0, 0.2, lag_s=0.1)], {"cluster": 0.8}, {"cluster": 0.8}),
}


@pytest.mark.parametrize(("pieces", "waited", "silent"), TRACES.values(), ids=TRACES)
def test_a_trace(pieces: list[Piece], waited: dict[str, float], silent: dict[str, float]) -> None:
    told = played(*pieces)

    assert (waits(told), silences(told)) == (waited, silent)
    assert told.pieces == len(pieces) - 1
    assert told.blamed == (Cause(next(iter(silent))) if silent else None)


def test_a_larger_cushion_bridges_what_a_smaller_one_does_not() -> None:
    pieces = [Piece(n * 0.02, 0.02) for n in range(20)] + [Piece(0.5, 1.0)]

    assert played(*pieces, cushion_s=0.02).gaps == {Cause.CLUSTER: 1}
    assert played(*pieces, cushion_s=0.2).gaps == {}


def test_of_a_stream_without_speech_nothing_is_said() -> None:
    assert Playback(CUSHION_S).played() is None


durations = st.floats(0.001, 2)


@given(st.lists(st.tuples(durations, durations), min_size=1))
def test_playing_and_silence_make_up_the_time_without_a_cushion(steps: list[tuple[float, float]]) -> None:
    pieces, now = [], 0.0
    for pause_s, audio_s in steps:
        pieces.append(Piece(now, audio_s))
        now += pause_s
    told, spoken_s = played(*pieces, cushion_s=0), sum(each.audio_s for each in pieces[:-1])
    last_s = pieces[-1].at_s

    silent_s = sum(told.jitter_s.values())
    # When the last piece comes, what came before has been played, or is still to be.
    assert silent_s >= last_s - spoken_s - 1e-6
    assert silent_s <= last_s + 1e-6
    assert all(seconds > LEAST_GAP_S for seconds in told.silent_s.values())
    assert sum(told.gaps.values()) <= told.pieces


def test_a_listener_knows_how_long_its_pieces_speak() -> None:
    flight = Flight(KEY)
    flight.add(bytes(1000))
    flight.heard(1.0, 5.0)
    flight.audible(Head("audio/wav", "c0", 0.1, 0.2, stored=True))
    early, late = (Listener(flight, lambda: None) for _ in range(2))
    early.take()
    first_s = early.audio_s
    flight.add(bytes(1000))
    flight.heard(3.0, 6.0)
    early.take()

    assert (first_s, first_s + early.audio_s, flight.arrived_s) == (1.0, 3.0, 6.0)
    assert len(late.take()) + len(late.take()) == early.position == 2000
    assert late.audio_s == pytest.approx(1.5)


def test_lag_is_the_sum_of_what_beats_were_late_and_its_worst_is_of_late() -> None:
    lag = Lag()
    for due_s, came_s in ((1.0, 1.0), (1.1, 3.1), (3.2, 3.3), (4.0, 3.9)):
        lag.beat(due_s, came_s)

    assert lag.total_s == pytest.approx(2.1)
    assert lag.spread.count == 4
    assert lag.recent_s(5.0) == pytest.approx(2.0)
    assert lag.recent_s(60.0) == 0.0
