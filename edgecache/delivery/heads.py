"""Heads that were read before, found again by equality: a client sends the same one with text after text. Pure.

Keeps rules 1 and 7. What a head says never changes, and whom it admits only with the keyring, so that is compared. Heads are
remembered when they come for the second time: one that is never sent again, as where each has an id or a span of its own,
would push out another.
"""

from typing import NamedTuple

from edgecache.delivery import plain
from edgecache.delivery.auth import Caller, Gate, Keyring
from edgecache.delivery.memo import Memo, Noted
from edgecache.errors import ClientError

#: A client has a few, which differ in the length of the body.
HEADS_BYTES = 1 << 20
#: About what Python adds to one.
OVERHEAD_BYTES = 1500
NOTED_AT_MOST = 4096


class Known(NamedTuple):
    """What a head says, and who was admitted with it by which keyring."""

    found: plain.Plain
    ring: Keyring
    caller: Caller


class Heads:
    """What was read of late."""

    __slots__ = ("_gate", "_memo", "_noted")

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._memo: Memo[bytes, Known] = Memo(HEADS_BYTES)
        self._noted = Noted(NOTED_AT_MOST)

    def __repr__(self) -> str:
        return f"<Heads {self._memo!r}>"

    def read(self, received: bytes) -> Known | None:
        """The plain request that these bytes begin with, from someone who may ask. None: aiohttp is to read it."""
        head = received[: received.find(b"\r\n\r\n", 0, plain.MAX_HEAD_BYTES) + 4]
        known = self._memo.get(head)
        if known is not None and known.ring is self._gate.ring:
            return known
        found, ring = plain.read(received), self._gate.ring
        if found is None:
            return None
        try:
            known = Known(found, ring, ring.admit(found.presented))
        except ClientError:
            return None
        if self._noted.again(head):
            self._memo.put(head, known, len(head) + OVERHEAD_BYTES)
        return known
