"""What was worked out before, found again by equality, within a bound of bytes. Pure.

Keeps rule 7. Two generations: what is asked for moves into the young one; when that has its half of the bound it becomes
the old one, and the old one is forgotten. So what is used stays, no use costs more than two look-ups, and nothing has to
be ordered. The keys are compared and not only hashed: two that collide are never taken for one another.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class Memo(Generic[KeyT, ValueT]):
    """Remembers at most `max_bytes`."""

    __slots__ = ("_half_bytes", "_old", "_old_bytes", "_young_bytes", "young")

    def __init__(self, max_bytes: int) -> None:
        self._half_bytes = max_bytes // 2
        #: What was put or asked for of late, with its weight; for who only looks. Another one whenever it has grown enough.
        self.young: dict[KeyT, tuple[ValueT, int]] = {}
        self._old: dict[KeyT, tuple[ValueT, int]] = {}
        self._young_bytes = self._old_bytes = 0

    def __repr__(self) -> str:
        return f"<Memo {len(self)} in {self.held_bytes} bytes>"

    def __len__(self) -> int:
        return len(self.young) + len(self._old)

    @property
    def held_bytes(self) -> int:
        """What is remembered weighs this."""
        return self._young_bytes + self._old_bytes

    def get(self, key: KeyT) -> ValueT | None:
        """What is remembered under this key."""
        found = self.young.get(key)
        if found is not None:
            return found[0]
        if key not in self._old:
            return None
        value, weight_bytes = self._old.pop(key)
        self._old_bytes -= weight_bytes
        self.put(key, value, weight_bytes)
        return value

    def put(self, key: KeyT, value: ValueT, weight_bytes: int) -> None:
        """Remembers this; what weighs more than half of the bound is not."""
        self.forget(key)
        if weight_bytes > self._half_bytes:
            return
        if self._young_bytes + weight_bytes > self._half_bytes:
            self._old, self._old_bytes = self.young, self._young_bytes
            self.young, self._young_bytes = {}, 0
        self.young[key] = value, weight_bytes
        self._young_bytes += weight_bytes

    def forget(self, key: KeyT) -> None:
        """As if it had never been."""
        if key in self.young:
            self._young_bytes -= self.young.pop(key)[1]
        if key in self._old:
            self._old_bytes -= self._old.pop(key)[1]


class Noted:
    """What came once, by its hash: what comes a second time is worth remembering, and what never comes again would push out
    what does. At most so many are noted; then all are forgotten, and two that collide cost a memo an entry too early."""

    __slots__ = ("_at_most", "_marks")

    def __init__(self, at_most: int) -> None:
        self._at_most = at_most
        self._marks: set[int] = set()

    def again(self, key: Hashable) -> bool:
        """Whether it was noted, and is no more; else it is from now on."""
        mark = hash(key)
        if mark in self._marks:
            self._marks.discard(mark)
            return True
        if len(self._marks) >= self._at_most:
            self._marks.clear()
        self._marks.add(mark)
        return False

    def clear(self) -> None:
        """As if nothing had come."""
        self._marks.clear()
