"""Telling systemd how we are (sd_notify(3)): a datagram to the socket it names; nothing where there is none.

Speech never depends on who listens there: telling does not wait, and what can't be told is not.
"""

import asyncio
import os
import socket
from collections.abc import Mapping
from contextlib import suppress


def notify(*states: str, environ: Mapping[str, str] = os.environ) -> None:
    """Sends states such as `READY=1`."""
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, suppress(OSError):
        sender.setblocking(False)
        sender.sendto("\n".join(states).encode(), address)


def watchdog_s(environ: Mapping[str, str] = os.environ) -> float | None:
    """How often systemd wants to hear from us; half of what it waits, as sd_watchdog_enabled(3) advises."""
    waits_us = environ.get("WATCHDOG_USEC", "")
    return int(waits_us) / 2_000_000 if waits_us.isdigit() and int(waits_us) > 0 else None


async def keep_watchdog(every_s: float) -> None:
    """Says that the event loop still turns, for as long as it does."""
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(every_s)
