"""Who is before a proxy: the address that counts for limits, taken from `X-Forwarded-For` of proxies that are trusted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]+)?|([0-9.]+):[0-9]+")
SITE_BITS = 64  # of an IPv6 address: whoever has one has all that begin with these


def network_from(text: str) -> Network:
    """Return the address or network that a text names. Raise ValueError, with what is wrong."""
    try:
        network = ip_network(text)
    except ValueError:
        raise ValueError("is not an address (10.0.0.7) or a network (10.0.0.0/28, fd00::/64)") from None
    if not network.prefixlen:
        raise ValueError("is everybody, and then anybody may say who they are: name your proxies only")
    return network


def is_trusted(address: str, trusted: tuple[Network, ...]) -> bool:
    """Return whether an address is one of a trusted proxy."""
    if not trusted:
        return False
    found = _address(address)
    return found is not None and any(found in network for network in trusted)


def caller_of(address: str, forwarded: Iterable[str], trusted: tuple[Network, ...]) -> str:
    """Return the address of who calls, for a connection from `address` with these `X-Forwarded-For` lines.

    It is the last one that is no trusted proxy's. What stands before it was written by strangers and is never read; when a
    trusted proxy names nobody, it is the caller itself.
    """
    if not is_trusted(address, trusted):
        return address
    for hop in reversed(",".join(forwarded).split(",")):
        found = _address(hop.strip())
        if found is None:
            return address
        address = str(found)
        if not any(found in network for network in trusted):
            return address
    return address


def peer_of_address(address: str) -> str:
    """Return for whose limit an address counts: an IPv6 address for its /64."""
    found = _address(address)
    if isinstance(found, IPv6Address):
        return str(ip_network((int(found) >> SITE_BITS << SITE_BITS, SITE_BITS)))
    return str(found) if found else address


def _address(text: str) -> Address | None:
    """Return an address, without a port and as IPv4 when it is one in the clothes of IPv6; None when it is none."""
    with_port = _WITH_PORT.fullmatch(text)
    if with_port:
        text = with_port[1] or with_port[2]
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found
