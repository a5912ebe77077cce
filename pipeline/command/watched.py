"""What systemd is told of a running pipeline (sd_notify): that it is ready, that it lives, that it stops.

The protocol is a datagram to the socket that $NOTIFY_SOCKET names; see systemd's sd_notify(3). Without it nothing is said.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress


def tell(state: str) -> None:
    """Such as "READY=1"; a service manager that does not listen is no error."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        out.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


async def live() -> None:
    """Twice in each span that the watchdog gives: a loop that hangs is started again."""
    given = os.environ.get("WATCHDOG_USEC", "")
    meant = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not given.isdecimal() or meant != str(os.getpid()):
        return
    while True:
        tell("WATCHDOG=1")
        await asyncio.sleep(int(given) / 2e6)
