"""A flight: readers see prefixes of one rendering, whatever the others do (rules 3, 4, 5)."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecache.cache.key import Key
from edgecache.errors import NodeError, SpeechError, UpstreamError
from edgecache.fill.flight import READ_BYTES, TRANSITIONS, Event, Flight, Head, Rendering, State

KEY = Key("cd" * 32)
HEAD = Head("audio/wav", "near", 0.1, 0.1, True)
BROKE = UpstreamError(502, "broken_off", "it broke")


async def listen(flight: Flight) -> tuple[bytes, bool]:
    """All a reader hears, and whether it heard an end."""
    heard = b""
    try:
        while chunk := await flight.read(len(heard)):
            heard += chunk
    except SpeechError:
        return heard, False
    return heard, True


@given(st.lists(st.binary(max_size=50), max_size=20), st.integers(0, 1000), st.booleans())
@settings(max_examples=100)
def test_reading_by_position_gives_the_rendering(chunks: list[bytes], position: int, collapsed: bool) -> None:
    rendering, whole = Rendering(), b"".join(chunks)
    for chunk in chunks:
        rendering.add(chunk)
    if collapsed and whole:
        assert rendering.collapse() == whole
    position = position % (len(whole) + 1)
    read = rendering.read(position)
    assert whole[position:].startswith(read)
    assert bool(read) == (position < len(whole))
    assert rendering.length == len(whole)


def test_a_reader_far_behind_is_given_bounded_pieces() -> None:
    rendering = Rendering()
    rendering.add(bytes(5 * READ_BYTES))
    assert len(rendering.read(1)) == READ_BYTES


async def test_rule_4_readers_hear_the_same_from_byte_zero_whenever_they_come() -> None:
    flight = Flight(KEY)
    early = asyncio.create_task(listen(flight))
    await asyncio.sleep(0)
    flight.add(b"head")
    flight.audible(HEAD)
    flight.add(b"one")
    middle = asyncio.create_task(listen(flight))
    gone = asyncio.create_task(listen(flight))
    await asyncio.sleep(0)
    gone.cancel()
    flight.add(b"two")
    flight.end("unframed")
    late = asyncio.create_task(listen(flight))
    heard = await asyncio.gather(early, middle, late)
    assert set(heard) == {(b"headonetwo", True)}
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_rule_3_a_break_is_never_an_end() -> None:
    flight = Flight(KEY)
    flight.add(b"x")
    flight.audible(HEAD)
    reader = asyncio.create_task(listen(flight))
    await asyncio.sleep(0)
    flight.fail(BROKE)
    assert await reader == (b"x", False)
    assert await listen(flight) == (b"x", False)


async def test_an_error_before_the_first_audio_is_a_proper_error() -> None:
    flight = Flight(KEY)
    waiting = asyncio.create_task(flight.begun())
    await asyncio.sleep(0)
    flight.fail(NodeError(503, "busy", "no"))
    with pytest.raises(NodeError, match="busy"):
        await waiting
    assert flight.state is State.REFUSED


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("event", list(Event))
def test_every_transition_is_in_the_table_or_a_bug(state: State, event: Event) -> None:
    flight = Flight(KEY)
    flight.state = state
    if (state, event) in TRANSITIONS:
        flight._move(event)
        assert flight.state is TRANSITIONS[state, event]
    else:
        with pytest.raises(KeyError):
            flight._move(event)


def test_an_end_is_final() -> None:
    endings = {State.SEALED, State.ENDED, State.BROKEN, State.REFUSED}
    assert not [state for state, _ in TRANSITIONS if state in endings]
