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
_CRLF = b"\r\n"
_STRING, _ERROR = b"$-"
_NOTHING = b"-1"


class Unreadable(NamedTuple):
    """Not a reply that is read, and so the last one. too_large: a value, but one beyond the bound."""

    why: str
    too_large: bool = False


#: A value is a view of all that was read with it: who keeps some of it copies that.
Reply = memoryview | Refusal | Unreadable | None


class Replies:
    """What one connection replies, in order."""

    __slots__ = ("_begun", "_lacking_bytes", "_max_value_bytes")

    def __init__(self, max_value_bytes: int) -> None:
        self._max_value_bytes = max_value_bytes
        self._begun = bytearray()
        #: What the value that has begun still lacks. 0: its first line has not ended, so nobody knows.
        self._lacking_bytes = 0

    def __repr__(self) -> str:
        return f"<Replies {len(self._begun)} bytes begun, {self._lacking_bytes} lacking>"

    @property
    def begun(self) -> bool:
        """Whether there is a part of a reply."""
        return bool(self._begun)

    def feed(self, read: bytes) -> list[Reply]:
        """The replies that are whole now. Feed no more after an `Unreadable`."""
        replies: list[Reply] = []
        at, odd = 0, None
        if self._begun:
            if self._lacking_bytes:
                at = min(self._lacking_bytes, len(read))
                self._begun += memoryview(read)[:at]
                self._lacking_bytes -= at
                if self._lacking_bytes:
                    return replies
            begun, self._begun = self._begun, bytearray()
            if at:
                odd = self._take(begun, 0, replies)
            else:
                read = bytes(begun) + read
        odd = odd or self._take(read, at, replies)
        if odd is not None:
            replies.append(odd)
        return replies

    def _take(self, read: bytes | bytearray, at: int, replies: list[Reply]) -> Unreadable | None:
        """All replies from here on; the beginning of one is kept."""
        view, size = memoryview(read), len(read)
        while at < size:
            kind = read[at]
            if kind != _STRING and kind != _ERROR:
                return Unreadable("neither a string nor an error")
            end = read.find(_CRLF, at, at + MAX_LINE_BYTES)
            if end < 0:
                if size - at >= MAX_LINE_BYTES:
                    return Unreadable("a line without an end")
                break
            line, after = read[at + 1 : end], end + 2
            if kind == _ERROR:
                replies.append(Refusal(code_of(line.decode("utf-8", "replace"))))
            elif line == _NOTHING:
                replies.append(None)
            elif not line.isdigit():
                return Unreadable("a length that is none")
            else:
                begins, after = after, after + int(line)
                if after - begins > self._max_value_bytes:
                    return Unreadable("a value beyond the bound", too_large=True)
                if after + 2 > size:
                    self._lacking_bytes = after + 2 - size
                    break
                if not read.startswith(_CRLF, after):
                    return Unreadable("a value longer than it says")
                replies.append(view[begins:after])
                after += 2
            at = after
        self._begun += view[at:]
        return None
