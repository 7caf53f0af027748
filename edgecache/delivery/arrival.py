"""What clients waited for connections, as the kernel tells when one is taken over: the line's part, and this edge's."""

import socket
import struct

from edgecache.measures.ladder import Spread

#: In Linux's `struct tcp_info` (include/uapi/linux/tcp.h): since something came, in ms; the round trip, in µs.
_TOLD = struct.Struct("@56xI8xI")
_ABLE = hasattr(socket, "TCP_INFO")


class Arrivals:
    """All of a node. line: the round trip of the handshake. waited: how long connections then lay there.

    What came at once with the handshake makes it look shorter, never longer.
    """

    __slots__ = ("line", "waited")

    def __init__(self) -> None:
        self.line, self.waited = Spread(), Spread()

    def __repr__(self) -> str:
        return f"<Arrivals {self.line.count}>"

    @property
    def parts(self) -> dict[str, Spread]:
        """By whose part it is."""
        return {"client": self.line, "edge": self.waited}

    def add(self, tcp: socket.SocketType) -> None:
        """One more was just taken over; nothing is known if it is no TCP, or the platform does not tell."""
        if not _ABLE:
            return
        try:
            waited_ms, rtt_us = _TOLD.unpack(tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TOLD.size))
        except (OSError, struct.error):  # the client is gone again, or an older kernel says less
            return
        self.line.add(rtt_us / 1e6)
        self.waited.add(waited_ms / 1e3)
