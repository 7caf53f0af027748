"""How much audio is in what a client receives: bodies of HTTP with a length or in chunks, and frames of a WebSocket. Pure.

Each is fed what came, in any pieces, and tells how many bytes of content were in it. It keeps no audio.
"""

from enum import Enum, auto

_HEAD_END = b"\r\n\r\n"
_FINAL_TEXT, _BINARY, _CLOSE = 0x81, 0x82, 0x88


class Broken(Exception):
    """Not what was asked for, or not as the protocol has it."""


class Body:
    """One answer of HTTP/1.1 with status 200. wire_bytes: of the body, framing included."""

    def __init__(self) -> None:
        self.over = False
        self.head = b""
        self.wire_bytes = 0
        self._pending = bytearray()
        self._left: int | None = None
        self._chunked = False

    def feed(self, received: bytes) -> int:
        """Bytes of content in this. Broken: another status."""
        self._pending += received
        if not self.head:
            end = self._pending.find(_HEAD_END)
            if end < 0:
                return 0
            self._begin(bytes(self._pending[:end]))
            del self._pending[: end + len(_HEAD_END)]
            self.wire_bytes += len(self._pending)
        else:
            self.wire_bytes += len(received)
        return self._in_chunks() if self._chunked else self._plain()

    def _begin(self, head: bytes) -> None:
        self.head = head
        if not head.startswith(b"HTTP/1.1 200"):
            raise Broken(head.partition(b"\r\n")[0].decode(errors="replace"))
        at = head.lower().find(b"content-length:")
        self._chunked = at < 0
        self._left = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else None

    def _plain(self) -> int:
        assert self._left is not None
        content = len(self._pending)
        self._left -= content
        self._pending.clear()
        self.over = self._left == 0
        return content

    def _in_chunks(self) -> int:
        """_left: of the chunk under way and the line's end behind it; None: its size is to come."""
        content = 0
        while self._pending and not self.over:
            if self._left is None:
                end = self._pending.find(b"\r\n")
                if end < 0:
                    break
                size = int(self._pending[:end], 16)
                del self._pending[: end + 2]
                self._left, self.over = size + 2, size == 0
            taken = min(self._left, len(self._pending))
            content += min(taken, max(0, self._left - 2))
            del self._pending[:taken]
            self._left = self._left - taken or None
        return content


class Got(Enum):
    """What a frame was."""

    AUDIO = auto()
    TEXT = auto()


class Frames:
    """One side of a WebSocket, after the handshake: unmasked, unfragmented, as servers here send them."""

    def __init__(self) -> None:
        self._pending = bytearray()
        #: Of the frame under way: what it is, and how much of it is to come.
        self._kind = 0
        self._left = 0
        self._text = bytearray()

    def feed(self, received: bytes) -> list[tuple[Got, int | bytes]]:
        """Audio in bytes, and whole texts, in order. Broken: a frame that is none of the two."""
        self._pending += received
        found: list[tuple[Got, int | bytes]] = []
        while True:
            if not self._left and not self._begin():
                return found
            taken = min(self._left, len(self._pending))
            if not taken:
                return found
            self._left -= taken
            if self._kind == _BINARY:
                found.append((Got.AUDIO, taken))
            else:
                self._text += self._pending[:taken]
                if not self._left:
                    found.append((Got.TEXT, bytes(self._text)))
                    self._text.clear()
            del self._pending[:taken]

    def _begin(self) -> bool:
        """Whether a frame's head is there."""
        if len(self._pending) < 2:
            return False
        kind, short = self._pending[0], self._pending[1]
        extra = {126: 2, 127: 8}.get(short, 0)
        if len(self._pending) < 2 + extra:
            return False
        if kind not in (_FINAL_TEXT, _BINARY):
            raise Broken(f"a frame that begins with {kind:#x}" + (", a close" if kind == _CLOSE else ""))
        self._kind = kind
        self._left = int.from_bytes(self._pending[2 : 2 + extra], "big") if extra else short
        del self._pending[: 2 + extra]
        return True


def text_frame(text: bytes) -> bytes:
    """A text as a client sends it; a mask of zeros changes nothing."""
    size = len(text)
    head = (
        bytes([_FINAL_TEXT, 0x80 | size]) if size < 126 else bytes([_FINAL_TEXT, 0x80 | 126]) + size.to_bytes(2, "big")
    )
    return head + bytes(4) + text
