"""What becomes of a fill that nobody listens to any more."""

import asyncio
from dataclasses import replace

import pytest

from edgecache.fill.flight import State
from edgecache.fill.limits import FillLimits
from edgecache.fill.orphans import Fate, Orphan, fate
from edgecache.fill.priority import Priority
from tests.fill_rig import KEY, Listener, order, rig, settle
from tests.scripted_clusters import WAV, Barrier, Reply

LIMITS = FillLimits(orphan_characters=100, orphan_kept_bytes=1000)
SPOKEN = Orphan(Priority.INTERACTIVE, characters=101, others=0, asked=True, stored=True, heard_bytes=999)


@pytest.mark.parametrize(
    ("orphan", "pressed", "becomes"),
    [
        pytest.param(SPOKEN, False, Fate.FINISH, id="by default it is finished"),
        pytest.param(SPOKEN, True, Fate.LONG, id="long, little there, and others wait"),
        pytest.param(replace(SPOKEN, characters=100), True, Fate.FINISH, id="short"),
        pytest.param(replace(SPOKEN, heard_bytes=1000), True, Fate.FINISH, id="much is there"),
        pytest.param(replace(SPOKEN, others=1), True, Fate.FINISH, id="someone else asked for it"),
        pytest.param(replace(SPOKEN, priority=Priority.LOOK_AHEAD), True, Fate.LONG, id="asked for ahead"),
        pytest.param(replace(SPOKEN, priority=Priority.PREFETCH), True, Fate.FINISH, id="to be kept"),
        pytest.param(replace(SPOKEN, priority=Priority.WARM_UP, stored=False), True, Fate.FINISH, id="warm-up"),
        pytest.param(replace(SPOKEN, stored=False), False, Fate.NOT_STORED, id="nobody would have it"),
        pytest.param(replace(SPOKEN, characters=1, asked=False), True, Fate.NOT_ASKED, id="it waits itself"),
        pytest.param(replace(SPOKEN, asked=False), False, Fate.FINISH, id="it waits no more"),
    ],
)
def test_its_fate(orphan: Orphan, pressed: bool, becomes: Fate) -> None:
    assert fate(orphan, LIMITS, pressed=pressed) is becomes


async def left_alone(listener: Listener) -> None:
    """It listens until audio comes, and leaves."""
    listening = asyncio.create_task(listener.listen())
    await settle()
    listening.cancel()
    await asyncio.wait([listening])
    for _ in range(5):
        await asyncio.sleep(0)


async def test_rule_4_it_is_finished_and_counted() -> None:
    barrier = Barrier()
    async with rig(Reply([WAV[:100], barrier, WAV[100:]]), orphan_after_s=0.0) as made:
        await left_alone(Listener(made.fills.lead(order())))
        assert made.fills.status()["orphans"] == {"now": 1, "finished": 0, "abandoned": {}}
        barrier.open()
        await made.fills.drain()
        assert [each.audio for each in made.kept] == [WAV]
        assert made.fills.status()["orphans"] == {"now": 0, "finished": 1, "abandoned": {}}


async def test_who_comes_back_hears_it_from_its_beginning_and_it_is_no_orphan() -> None:
    barrier = Barrier()
    async with rig(Reply([WAV[:100], barrier, WAV[100:]]), orphan_after_s=0.0) as made:
        await left_alone(Listener(made.fills.lead(order())))
        flight = made.fills.join(KEY)
        assert flight is not None
        again = Listener(flight)
        listening = asyncio.create_task(again.listen())
        await settle()
        barrier.open()
        await listening
        await made.fills.drain()
        assert (bytes(again.heard), made.fills.orphans_finished) == (WAV, 0)


async def test_what_is_not_stored_ends_with_its_last_listener() -> None:
    async with rig(Reply([WAV[:100], Barrier()]), orphan_after_s=0.0) as made:
        flight = made.fills.lead(order(store=False), alone=True)
        await left_alone(Listener(flight))
        await made.fills.drain()
        assert flight.state is State.BROKEN
        assert made.fills.status()["orphans"] == {"now": 0, "finished": 0, "abandoned": {"not to be stored": 1}}


async def test_nobody_joins_what_is_being_abandoned() -> None:
    async with rig(Reply([WAV[:100], Barrier()]), orphan_after_s=0.0) as made:
        flight = made.fills.lead(order(store=False))
        listening = asyncio.create_task(Listener(flight).listen())
        await settle()
        assert made.fills.flight(KEY) is flight
        listening.cancel()
        await asyncio.wait([listening])
        while made.fills.under_way and made.fills.flight(KEY) is flight:
            await asyncio.sleep(0)
        assert made.fills.join(KEY) is None
        await made.fills.drain()
