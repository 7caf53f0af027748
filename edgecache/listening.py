"""The sockets that clients are served on: bound by us, or handed over by systemd; a row of them for each worker.

Each worker has sockets of its own at the same address (SO_REUSEPORT): the kernel shares connections out evenly, which it
does not do for a socket that several processes wait at. The supervisor keeps every socket open, so that connections which
wait at a dead worker's are not lost: another worker takes them (see `crew`).
"""

import os
import socket
from collections.abc import Collection, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass

from edgecache.checks import is_loopback
from edgecache.errors import SettingsError
from edgecache.ops.addresses import address_errors
from edgecache.settings import Settings

#: sd_listen_fds(3): the first of them.
FIRST_DESCRIPTOR = 3
BACKLOG = 1024
#: What a socket unit calls the one for admin calls (`FileDescriptorName=`); any other is for clients.
ADMIN = "admin"

Row = tuple[socket.socket, ...]


@dataclass(frozen=True, slots=True)
class Berth:
    """Where a node lives: alone, or as one of several workers. rows: the sockets of each worker, its own at `slot`.

    redis_url: of the supervisor's private Redis. supervised: the supervisor answers operators and talks to systemd.
    began_s: when the daemon began, on the machine's monotonic clock; None: with this process.
    """

    rows: tuple[Row, ...] = ()
    slot: int = 0
    redis_url: str | None = None
    admin: socket.socket | None = None
    supervised: bool = False
    began_s: float | None = None


def rows(settings: Settings, handed: Mapping[str, Row], workers: int) -> tuple[Row, ...]:
    """The sockets of each worker. SettingsError: the address can't be had, or may not be served without keys."""
    given = tuple(each for name, row in handed.items() if name != ADMIN for each in row)
    if not given:
        return _bound(settings.listen.host, settings.listen.port, workers)
    if (settings.auth is None or settings.auth.keys_file is None) and not all(map(_on_loopback, given)):
        raise SettingsError(
            "systemd hands over a socket that is not on loopback, and anyone could ask without a key: set auth.keys_file"
        )
    return (given,) * workers


def admin_socket(settings: Settings, handed: Mapping[str, Row]) -> socket.socket | None:
    """The one for admin calls, if systemd handed it over. SettingsError: it may not be served without a token."""
    given = handed.get(ADMIN, ())
    if given and settings.admin.token is None and not all(map(_on_loopback, given)):
        raise SettingsError("systemd hands over an admin socket that is not on loopback: set admin.token_file")
    return given[0] if given else None


def named(environ: Mapping[str, str] = os.environ) -> list[str]:
    """What the sockets are called that systemd opened for this process (sd_listen_fds(3)); empty: there are none."""
    count, names = environ.get("LISTEN_FDS", ""), environ.get("LISTEN_FDNAMES", "")
    if environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdigit():
        return []
    known = names.split(":") if names else []
    return [known[index] if index < len(known) else "unknown" for index in range(int(count))]


def contradiction(flags: Collection[str], names: Collection[str]) -> str:
    """Which flag says another address than the sockets that are handed over; empty: none does."""
    taken = {"--listen": any(name != ADMIN for name in names), "--admin": ADMIN in names}
    for flag in flags:
        if taken[flag]:
            return f"{flag} is given, and systemd hands over sockets for the same: drop the flag, or change the socket unit"
    return ""


def handed_over(environ: MutableMapping[str, str] = os.environ) -> dict[str, Row]:
    """Sockets that systemd opened for this process, by name (sd_listen_fds_with_names(3)); no child is told of them."""
    names = named(environ)
    for each in ("PID", "FDS", "FDNAMES"):
        environ.pop(f"LISTEN_{each}", "")
    found: dict[str, Row] = {}
    for index, name in enumerate(names):
        descriptor = FIRST_DESCRIPTOR + index
        os.set_inheritable(descriptor, False)
        opened = socket.socket(fileno=descriptor)
        if opened.type != socket.SOCK_STREAM or not opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise SettingsError(f"systemd hands over descriptor {descriptor}, which is no listening stream socket")
        opened.setblocking(False)
        found[name] = (*found.get(name, ()), opened)
    return found


def port_of(opened: socket.socket) -> int:
    """Its port; 0: it has none."""
    return 0 if opened.family == socket.AF_UNIX else int(opened.getsockname()[1])


def _on_loopback(opened: socket.socket) -> bool:
    return opened.family == socket.AF_UNIX or is_loopback(str(opened.getsockname()[0]))


def _bound(host: str, port: int, workers: int) -> tuple[Row, ...]:
    with address_errors("listen", host, port):
        addresses = _addresses(host, port)
        if workers > 1 and port:
            for family, address in addresses:
                _bind(family, address, shared=False).close()  # SO_REUSEPORT would not say that another daemon is there
        made: list[Row] = []
        for _ in range(workers):
            row: list[socket.socket] = []
            for family, address in addresses:
                row.append(_bind(family, (address[0], port or address[1]), shared=workers > 1))
                port = row[-1].getsockname()[1]
            made.append(tuple(row))
    return tuple(made)


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, (str(address[0]), int(address[1]))) for family, _, _, _, address in found))


def _bind(family: socket.AddressFamily, address: tuple[str, int], *, shared: bool) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # said: asyncio sets TCP_NODELAY on no other
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            with suppress(OSError):  # then ::1 and 127.0.0.1 are two addresses
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(address)
        opened.listen(BACKLOG)
        opened.setblocking(False)
    except BaseException:
        opened.close()
        raise
    return opened
