"""A flight: readers see prefixes of one rendering, whatever the others do (rules 3, 4, 5)."""

import asyncio
from random import randbytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecache.cache.key import Key
from edgecache.errors import NodeError, SpeechError, UpstreamError
from edgecache.fill.flight import (
    GATHERED_BYTES,
    READ_BYTES,
    TRANSITIONS,
    Event,
    Flight,
    Head,
    Listener,
    Rendering,
    State,
)

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


@given(
    st.lists(st.integers(1, GATHERED_BYTES * 2) | st.just(4096), max_size=90),
    st.lists(st.integers(0, 1 << 24), max_size=20),
)
@settings(max_examples=40, deadline=None)
def test_pieces_that_were_put_together_are_read_like_any(sizes: list[int], positions: list[int]) -> None:
    rendering, whole = Rendering(), randbytes(sum(sizes))
    at = 0
    for size in sizes:
        rendering.add(whole[at : at + size])
        at += size
        for position in (at - size, at - 1, at, *(each % at for each in positions[:3])):
            read = rendering.read(position)
            assert whole.startswith(read, position)
            assert (0 < len(read) <= READ_BYTES) == (position < at)
    assert rendering.collapse() == whole
    assert all(whole.startswith(rendering.read(each % (at + 1)), each % (at + 1)) for each in positions)


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


class Told:
    """A listener that takes all that is there whenever it is called, unless it is paused; and how often it was called."""

    def __init__(self, flight: Flight) -> None:
        self.heard, self.calls, self.paused, self.error = b"", 0, False, ""
        self.listener = Listener(flight, self.take)

    def take(self) -> None:
        self.calls += 1
        try:
            while not self.paused and (chunk := self.listener.take()):
                self.heard += chunk
        except SpeechError as error:
            self.error = error.code
        if self.listener.ended or self.error:
            self.listener.close()


def test_a_listener_hears_each_piece_before_the_writer_goes_on() -> None:
    flight = Flight(KEY)
    told = Told(flight)
    assert (told.listener.take(), told.listener.ended) == (b"", False)
    rendering = Rendering()
    rendering.add(b"head")
    flight.audible(HEAD, rendering)
    assert told.heard == b"head"
    flight.add(b"one")
    assert (told.heard, flight.readers) == (b"headone", 1)
    flight.end("unframed")
    assert (told.calls, flight.readers) == (3, 0)


def test_a_listener_that_does_not_take_loses_nothing() -> None:
    flight = Flight(KEY)
    told = Told(flight)
    flight.audible(HEAD)
    told.paused = True
    flight.add(b"one")
    flight.add(b"two")
    flight.end("unframed")
    assert (told.heard, told.listener.ended, flight.readers) == (b"", False, 1)
    told.paused = False
    told.take()
    assert (told.heard, flight.readers) == (b"onetwo", 0)


@pytest.mark.parametrize(("audible", "heard"), [(True, b"x"), (False, b"")], ids=["after audio", "before any"])
def test_rule_3_a_listener_is_told_of_a_break_behind_all_that_came(audible: bool, heard: bytes) -> None:
    flight = Flight(KEY)
    told = Told(flight)
    if audible:
        flight.audible(HEAD)
        flight.add(b"x")
    flight.fail(BROKE)
    assert (told.heard, told.error, flight.readers) == (heard, "broken_off", 0)
    assert not told.listener.ended


async def test_rule_4_a_listener_that_fails_or_closes_another_changes_nothing_for_the_rest() -> None:
    flight, said = Flight(KEY), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context["exception"]))
    first = Told(flight)

    def fail() -> None:
        first.listener.close()
        third.listener.close()
        raise ValueError("mine")

    failing, third, last = Listener(flight, fail), Told(flight), Told(flight)
    flight.audible(HEAD)
    flight.add(b"x")
    assert (first.heard, third.heard, last.heard, third.calls) == (b"", b"", b"x", 0)
    assert [str(each) for each in said] == ["mine"]
    assert flight.readers == 2
    failing.close()
    failing.close()
    assert flight.readers == 1


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
