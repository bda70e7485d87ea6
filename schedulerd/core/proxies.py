"""The client address behind trusted proxies, from `X-Forwarded-For`: it decides which limits apply to a caller."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]+)?|([0-9.]+):[0-9]+")
SITE_BITS = 64  # of an IPv6 address: one subscriber has all addresses with the same prefix


def network_from(text: str) -> Network:
    """Return the network that an address or network in CIDR notation denotes. Raise ValueError with the mistake."""
    try:
        network = ip_network(text)
    except ValueError:
        raise ValueError("is not an address (10.0.0.7) or a network (10.0.0.0/28, fd00::/64)") from None
    if not network.prefixlen:
        raise ValueError("covers all addresses, so that every client could set its own address: list the proxies only")
    return network


def is_trusted(address: str, trusted: tuple[Network, ...]) -> bool:
    """Return whether an address belongs to a trusted proxy."""
    if not trusted:
        return False
    found = _address(address)
    return found is not None and any(found in network for network in trusted)


def caller_of(address: str, forwarded: Iterable[str], trusted: tuple[Network, ...]) -> str:
    """Return the address of the client, for a connection from `address` with these `X-Forwarded-For` lines.

    It is the last address in them that is not a trusted proxy. Earlier entries can be forged and are ignored. When a trusted
    proxy adds no address, it is itself the client.
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
    """Return the key by which limits count an address: an IPv6 address counts as its /64 network."""
    found = _address(address)
    if isinstance(found, IPv6Address):
        return str(ip_network((int(found) >> SITE_BITS << SITE_BITS, SITE_BITS)))
    return str(found) if found else address


def _address(text: str) -> Address | None:
    """Return a parsed address without a port, IPv4-mapped IPv6 as IPv4; None when it cannot be parsed."""
    with_port = _WITH_PORT.fullmatch(text)
    if with_port:
        text = with_port[1] or with_port[2]
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found
