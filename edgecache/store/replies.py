"""What Redis may reply to a GET, out of bytes as they come. Pure.

A string, nothing, or an error: these three it reads. Whatever else comes is no reply to a GET, so the connection is out of
step, and nothing after it is read. It does not know what was asked, nor what a value means.

Keeps rule 7 with that: a value that says it is too large is refused before any of it is kept, no room is made for a list of
a length that somebody claims, and a line that does not end ends the reading.
"""

from typing import NamedTuple

from edgecache.store.connections import Refusal, code_of

#: An error of Redis's own is a fraction of this.
MAX_LINE_BYTES = 1024
#: What there is room for at first, and at most if nothing larger comes.
ROOM_BYTES, KEPT_BYTES = 256 << 10, 1 << 20
_CRLF = b"\r\n"
_STRING, _ERROR = b"$-"
_NOTHING = b"-1"


class Unreadable(NamedTuple):
    """Not a reply that is read, and so the last one. too_large: a value, but one beyond the bound."""

    why: str
    too_large: bool = False


#: A value is a view of where it was received: it is gone when more is received. Who keeps some of it copies that.
Reply = memoryview | Refusal | Unreadable | None


class Replies:
    """What one connection replies, in order. It is received into `room`, and told with `received`."""

    __slots__ = ("_begin", "_buffer", "_end", "_max_value_bytes", "_needed_bytes", "_view")

    def __init__(self, max_value_bytes: int) -> None:
        self._max_value_bytes = max_value_bytes
        self._have(ROOM_BYTES)
        #: Where what is not yet read begins and ends.
        self._begin = self._end = 0
        #: Of how many bytes the reply is that has begun. 0: its first line has not ended, so nobody knows.
        self._needed_bytes = 0

    def __repr__(self) -> str:
        begun_bytes = self._end - self._begin
        lacking_bytes = max(0, self._needed_bytes - begun_bytes)
        return f"<Replies {begun_bytes} bytes begun, {lacking_bytes} lacking, room for {len(self._buffer)}>"

    @property
    def begun(self) -> bool:
        """Whether there is a part of a reply."""
        return self._begin < self._end

    def room(self) -> memoryview:
        """Where to receive more, now; all values are gone with that."""
        begun_bytes = self._end - self._begin
        if not begun_bytes:
            if len(self._buffer) > KEPT_BYTES:
                self._have(ROOM_BYTES)
            self._begin = self._end = 0
            return self._view
        if self._begin + max(self._needed_bytes, begun_bytes + MAX_LINE_BYTES) > len(self._buffer):
            self._make_room(begun_bytes)
        return self._view[self._end :]

    def received(self, count: int) -> list[Reply]:
        """So many bytes came into the room: the replies that are whole now. Receive no more after an `Unreadable`."""
        self._end += count
        replies: list[Reply] = []
        odd = self._take(replies)
        if odd is not None:
            replies.append(odd)
            self._begin = self._end
        return replies

    def _have(self, size: int) -> None:
        self._buffer = bytearray(size)
        self._view = memoryview(self._buffer)

    def _make_room(self, begun_bytes: int) -> None:
        """The reply that has begun goes to the front. Room grows with what came of it, not with what it claims to be."""
        begun = self._view[self._begin : self._end]
        if self._needed_bytes > len(self._buffer) and 2 * begun_bytes > len(self._buffer):
            self._have(min(self._needed_bytes, 2 * len(self._buffer)))
        elif not self._begin:
            return
        self._view[:begun_bytes] = begun
        self._begin, self._end = 0, begun_bytes

    def _take(self, replies: list[Reply]) -> Unreadable | None:
        """All replies that are whole; the beginning of one is kept."""
        buffer, view, at, end = self._buffer, self._view, self._begin, self._end
        if at + self._needed_bytes > end:
            return None
        self._needed_bytes = 0
        while at < end:
            kind = buffer[at]
            if kind != _STRING and kind != _ERROR:
                return Unreadable("neither a string nor an error")
            line_end = buffer.find(_CRLF, at, min(end, at + MAX_LINE_BYTES))
            if line_end < 0:
                if end - at >= MAX_LINE_BYTES:
                    return Unreadable("a line without an end")
                break
            line, after = buffer[at + 1 : line_end], line_end + 2
            if kind == _STRING and line.isdigit():
                begins, after = after, after + int(line)
                if after - begins > self._max_value_bytes:
                    return Unreadable("a value beyond the bound", too_large=True)
                if after + 2 > end:
                    self._needed_bytes = after + 2 - at
                    break
                if not buffer.startswith(_CRLF, after):
                    return Unreadable("a value longer than it says")
                replies.append(view[begins:after])
                after += 2
            elif kind == _ERROR:
                replies.append(Refusal(code_of(line.decode("utf-8", "replace"))))
            elif line == _NOTHING:
                replies.append(None)
            else:
                return Unreadable("a length that is none")
            self._begin = at = after
        self._begin = at
        return None
