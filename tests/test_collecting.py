"""Full collections of garbage wait until nobody hears a stream."""

import gc
import weakref

import pytest

from edgecache.ops.collecting import BACKSTOP, WORTH, Collecting

#: What lives on makes a collection of the middle generation worth while; so much of it, one.
MIDDLE = 700 * 13


class Circle:
    """Goes with no reference, only with a collection."""

    def __init__(self) -> None:
        self.itself = self


def grow(collections: int) -> list[list[int]]:
    """So many collections of the middle generation come, if this is kept."""
    return [[] for _ in range(collections * MIDDLE)]


@pytest.mark.parametrize(
    ("collections", "quiet", "collected"),
    [(WORTH + 1, True, True), (WORTH + 1, False, False), (1, True, False)],
    ids=["quiet", "a stream is under way", "hardly anything has come"],
)
async def test_a_full_collection_waits_for_quiet(collections: int, quiet: bool, collected: bool) -> None:
    collecting = Collecting(lambda: quiet)
    collecting.start()
    try:
        circle = Circle()
        gc.collect()
        known = weakref.ref(circle)
        del circle
        kept = grow(collections)
        assert known() is not None, "found before its time"
        assert collecting.look() is collected
        assert (known() is None) is collected
        assert len(kept) == collections * MIDDLE
    finally:
        collecting.stop()


async def test_it_is_as_it_was_before_once_it_is_stopped() -> None:
    before = gc.get_threshold()
    collecting = Collecting(lambda: True)
    collecting.start()
    assert gc.get_threshold() == (*before[:2], BACKSTOP)
    collecting.stop()
    collecting.stop()
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, 0)
