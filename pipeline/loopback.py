"""Whether an address is of this machine alone."""

from __future__ import annotations


def is_loopback(host: str) -> bool:
    if host in {"127.0.0.1", "localhost"}:
        return True
    import ipaddress  # takes longer than all the rest of a good pipeline file, and seldom adds anything

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
