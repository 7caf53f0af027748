"""What a client waited for its connection, as the kernel tells when it is taken over: the line's part, and this edge's."""

import asyncio
import socket
import struct
from dataclasses import dataclass

#: In Linux's `struct tcp_info` (include/uapi/linux/tcp.h): since something came, in ms; the round trip, in µs.
_TOLD = struct.Struct("@56xI8xI")


@dataclass(frozen=True, slots=True)
class Arrival:
    """line_s: the round trip of the handshake. waited_s: how long the connection then lay there until it was taken over.

    What came at once with the handshake makes it look shorter, never longer.
    """

    line_s: float
    waited_s: float


def arrival(transport: asyncio.BaseTransport) -> Arrival | None:
    """Of a connection that was just taken over; None: no TCP, or the platform does not tell."""
    tcp = transport.get_extra_info("socket")
    if tcp is None or not hasattr(socket, "TCP_INFO") or tcp.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        told: bytes = tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TOLD.size)
    except OSError:  # the client is gone again
        return None
    if len(told) != _TOLD.size:
        return None
    waited_ms, rtt_us = _TOLD.unpack(told)
    return Arrival(rtt_us / 1e6, waited_ms / 1e3)
