"""Audio that is asked for again and again, in pages which the kernel sends as they are: a hit of it copies nothing.

Keeps rules 1 and 7. A sheet is a file in memory that has no name. It is written once, when it is made, and nothing is ever
written over what it holds: what the kernel still has to send of it stays what it was, also when the recording has been
purged and the sheet is closed. Sheets are a second copy of the few recordings that are hot, bounded in bytes and in number
(each is a descriptor). It does not know which recordings they are: `delivery.fastlane` does.
"""

import os
import socket

#: Smaller audio is sent sooner with a copy than with a second system call.
LEAST_BYTES = 12 << 10
#: More take too many descriptors from connections.
SHEETS_AT_MOST = 128
#: Systems without have hits all the same.
_ABLE = hasattr(os, "memfd_create") and hasattr(socket, "MSG_MORE")


class Sheet:
    """One recording's audio. It is closed when nobody has it any more."""

    __slots__ = ("_all", "fd", "size")

    def __init__(self, fd: int, size: int, together: "Sheets") -> None:
        self.fd, self.size = fd, size
        self._all = together

    def __repr__(self) -> str:
        return f"<Sheet of {self.size} bytes>"

    def __del__(self) -> None:
        os.close(self.fd)
        self._all.gone(self.size)


class Sheets:
    """All of a lane."""

    __slots__ = ("_max_bytes", "count", "held_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes if _ABLE else 0
        self.count = self.held_bytes = 0

    def __repr__(self) -> str:
        return f"<Sheets {self.count} of {self.held_bytes} bytes>"

    def make(self, audio: bytes) -> Sheet | None:
        """One of this audio. None: it is too small for it, there is no room, or the system has no descriptor for it."""
        size = len(audio)
        if size < LEAST_BYTES or self.held_bytes + size > self._max_bytes or self.count >= SHEETS_AT_MOST:
            return None
        try:
            fd = os.memfd_create("edgecache")
        except OSError:
            return None
        try:
            written = os.write(fd, audio)
        except OSError:
            written = 0
        if written < size:
            os.close(fd)
            return None
        self.count += 1
        self.held_bytes += size
        return Sheet(fd, size, self)

    def gone(self, size: int) -> None:
        """One of this size is closed."""
        self.count -= 1
        self.held_bytes -= size


class Outlet:
    """Where sheets are sent to: a connection's descriptor, which stays its transport's, and does not block."""

    __slots__ = ("_fd", "socket")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        #: For what only a socket can be asked; it is its transport's to close.
        self.socket = socket.SocketType(socket.AF_INET, socket.SOCK_STREAM, 0, fd)

    def send(self, head: bytes, sheet: Sheet) -> int:
        """How many bytes of both were taken; the rest is the transport's to send. Segments are filled: MSG_MORE."""
        sent = 0
        try:
            sent = self.socket.send(head, socket.MSG_MORE)
            return sent if sent < len(head) else sent + os.sendfile(self._fd, sheet.fd, 0, sheet.size)
        except OSError:  # full, or the client is gone: the transport sees the same, and deals with it
            return sent

    def close(self) -> None:
        """The transport is about to close the descriptor."""
        self.socket.detach()
