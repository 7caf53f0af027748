"""Who asks whom on behalf of what: a trace's context, as W3C Trace Context has it (`traceparent`, `tracestate`). Pure.

It is passed on to the cluster that is asked, whether or not this edge tells of its own part. What is malformed is dropped,
as the specification says, and is never part of a key. It does not know where spans go.
"""

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

import msgspec

PARENT, STATE = "traceparent", "tracestate"
#: W3C Trace Context §3.2.2: version, trace, parent, flags. A later version may have more behind; its first four are these.
_PARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
#: §3.3.1: a list of at most 32, each a key and a value. More than 512 characters need not be passed on.
_MEMBER = re.compile(r"[a-z0-9][a-z0-9_*/@-]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
_MOST_MEMBERS, _MOST_CHARACTERS = 32, 512
SAMPLED = 0x01


class Trace(msgspec.Struct, frozen=True):
    """One span: which trace it is of, its own id, and the id of the span it is part of (empty: of none)."""

    trace_id: str
    span_id: str
    flags: int
    state: str = ""
    parent_id: str = ""

    @property
    def sampled(self) -> bool:
        """Whether anyone is going to be told of it."""
        return bool(self.flags & SAMPLED)

    @property
    def headers(self) -> dict[str, str]:
        """What whoever is asked within it is told."""
        told = {PARENT: f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"}
        return told | {STATE: self.state} if self.state else told

    def child(self, span_id: str) -> "Trace":
        """A span within it."""
        return Trace(self.trace_id, span_id, self.flags, self.state, self.span_id)


#: Makes a span within the one that is given, if one is.
BeginSpan: TypeAlias = Callable[[Trace | None], Trace]


def read(headers: Mapping[str, str]) -> Trace | None:
    """The span that a request was made in; None: it says none, or nothing that can be read."""
    said = headers.get(PARENT)
    found = None if said is None else _PARENT.fullmatch(said)
    if found is None or (found[5] and found[1] == "00"):
        return None
    return Trace(found[2], found[3], int(found[4], 16), _state(headers.get(STATE, "")))


def _state(said: str) -> str:
    """The list as it may be passed on; empty: it may not."""
    members = [each.strip(" \t") for each in said.split(",") if each.strip(" \t")]
    whole = ",".join(members)
    fits = len(members) <= _MOST_MEMBERS and len(whole) <= _MOST_CHARACTERS
    return whole if fits and all(map(_MEMBER.fullmatch, members)) else ""
