"""Of a host to listen on: whether it can be one, and whether it is of this machine alone."""

from __future__ import annotations

import re

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.IGNORECASE | re.ASCII)
_LONGEST = 253  # characters of a name


def is_loopback(host: str) -> bool:
    if host in {"127.0.0.1", "localhost"}:
        return True
    import ipaddress  # takes longer than all the rest of a good pipeline file, and seldom adds anything

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_host(host: str) -> bool:
    """An IPv4 address, an IPv6 address in brackets, a name; or nothing, which is every address of this machine."""
    if host.startswith("["):
        return host.endswith("]") and _is_ipv6(host[1:-1])
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError:
            return False
    labels = host.removesuffix(".").split(".")
    if all(label.isdigit() for label in labels):
        return len(labels) == 4 and all(len(label) <= 3 and int(label) <= 255 for label in labels)
    return host == "" or (len(host) <= _LONGEST and all(map(_LABEL.fullmatch, labels)))


def _is_ipv6(text: str) -> bool:
    import ipaddress

    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
