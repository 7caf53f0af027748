"""Heads that were read before, found again by equality: a client sends the same one with text after text. Pure.

Keeps rules 1 and 7. What a head says never changes, and whom it admits only with the keyring, so that is compared. How long
the body is differs with the text, and changes nothing else: heads are compared without that number. Heads are
remembered when they come for the second time: one that is never sent again, as where each has an id or a span of its own,
would push out another.
"""

import re
from typing import NamedTuple

import msgspec

from edgecache.delivery import plain
from edgecache.delivery.auth import Caller, Gate, Keyring
from edgecache.delivery.memo import Memo, Noted
from edgecache.errors import ClientError

#: A client has a few, which differ in the length of the body.
HEADS_BYTES = 1 << 20
#: About what Python adds to one.
OVERHEAD_BYTES = 1500
NOTED_AT_MOST = 4096
#: As `plain` reads it; a head with two of them is not plain, and never remembered.
_LENGTH = re.compile(rb"\r\nContent-Length: ([1-9][0-9]{0,8})(?=\r\n)", re.IGNORECASE)


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
        end = received.find(b"\r\n\r\n", 0, plain.MAX_HEAD_BYTES) + 4
        said = _LENGTH.search(received, 0, end)
        head = received[:end] if said is None else received[: said.start(1)] + received[said.end(1) : end]
        known = self._memo.get(head)
        if known is not None and known.ring is self._gate.ring:
            if said is None or int(said[1]) == known.found.length:
                return known
            return Known(
                msgspec.structs.replace(known.found, length=int(said[1]), body_at=end), known.ring, known.caller
            )
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
