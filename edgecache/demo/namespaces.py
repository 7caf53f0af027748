"""Linux's network namespaces and tun devices, as far as a small world needs them; without other programs.

Keeps the rule that nothing made here has to be taken down: a namespace has no name and lives as long as someone is in it or
has it open, and a device lives as long as its file is open. So nothing is left, however a process ended. It does not know
what the packets are.
"""

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

#: linux/sched.h, linux/if_tun.h, linux/sockios.h.
_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x1, 0x1000, 0x4000
_TUN_F_CSUM, _TUN_F_TSO4 = 0x1, 0x2
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1
_SIOCSIFADDR, _SIOCSIFNETMASK, _SIOCSIFMTU, _SIOCSIFTXQLEN = 0x8916, 0x891C, 0x8922, 0x8943
_TCP_INFO_BYTES, _TCPI_RTT_AT = 104, 68  # linux/tcp.h
#: Packets that wait for whoever reads the device; past it TCP sees loss that nobody asked for.
_QUEUE_PACKETS = 10_000
#: Each packet comes with a `struct virtio_net_hdr`: so the kernel may leave large segments whole, and checksums open.
HEAD_BYTES = 10
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Interface:
    """How a device is called and reached; all that begins with the same 24 bits is behind it."""

    name: str
    address: str
    mtu: int


def current() -> int:
    """The namespace that this thread is in, as a file to be closed."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def enter(path: str) -> None:
    """This thread, and those that it will start, are in that namespace from now on."""
    namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _set(namespace)
    finally:
        os.close(namespace)


@contextmanager
def inside(path: str) -> Iterator[None]:
    """This thread is in that namespace; sockets that it makes stay there. Nothing may await in the block."""
    before = current()
    try:
        enter(path)
        try:
            yield
        finally:
            _set(before)
    finally:
        os.close(before)


def fresh() -> int:
    """A new namespace, with loopback up, as a file; this thread stays where it is."""
    before = current()
    try:
        _checked(_LIBC.unshare(_CLONE_NEWNET), "unshare")
        try:
            _rise("lo")
            return current()
        finally:
            _set(before)
    finally:
        os.close(before)


def tun(interface: Interface) -> int:
    """A device in this thread's namespace, up and addressed; it ends with its file. OSError: it can't be."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        name = interface.name.encode()
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name, _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR))
        _configure(_SIOCSIFADDR, struct.pack("16s16s", name, _address(interface.address)))
        _configure(_SIOCSIFNETMASK, struct.pack("16s16s", name, _address("255.255.255.0")))
        _configure(_SIOCSIFMTU, struct.pack("16si", name, interface.mtu))
        _configure(_SIOCSIFTXQLEN, struct.pack("16si", name, _QUEUE_PACKETS))
        _rise(interface.name)
    except OSError:
        os.close(device)
        raise
    return device


def offload(device: int, *, segments: bool) -> None:
    """Whether TCP may hand large segments over whole (many packets as one), or only packets that fit the MTU."""
    fcntl.ioctl(device, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4 if segments else 0)


def tcp_rtt_ms(connection: socket.socket) -> float:
    """The round trip as TCP itself has measured it."""
    told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    microseconds: int = struct.unpack_from("I", told, _TCPI_RTT_AT)[0]
    return microseconds / 1000


def _address(address: str) -> bytes:
    return struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))


def _rise(name: str) -> None:
    now = _configure(_SIOCGIFFLAGS, struct.pack("16s", name.encode()))
    flags: int = struct.unpack_from("H", now, 16)[0]
    _configure(_SIOCSIFFLAGS, struct.pack("16sH", name.encode(), flags | _IFF_UP))


def _configure(command: int, request: bytes) -> bytes:
    """What the kernel answers; a `struct ifreq` has 40 bytes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        return fcntl.ioctl(any_socket, command, request.ljust(40, b"\0"))


def _set(namespace: int) -> None:
    _checked(_LIBC.setns(namespace, _CLONE_NEWNET), "setns")


def _checked(result: int, call: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), call)
