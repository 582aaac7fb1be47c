"""The caller's address."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from sanic import Request

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NOWHERE = IPv4Address("0.0.0.0")  # noqa: S104 - nothing listens on it


def client_address(request: Request, trusted_proxies: Sequence[Network]) -> Address:
    """The peer's address or, behind trusted proxies, the last hop that none of them could have invented.

    X-Forwarded-For is read from the right: everything left of the first untrusted hop comes from the caller.
    """
    address = _address(request.client_ip or "") or _NOWHERE
    if not _is_trusted(address, trusted_proxies):
        return address
    hops = [hop.strip() for line in request.headers.getall("x-forwarded-for", []) for hop in str(line).split(",")]
    for hop in reversed(hops):
        found = _address(hop)
        if found is None:
            break
        address = found
        if not _is_trusted(address, trusted_proxies):
            break
    return address


def network_of(address: Address) -> str:
    """Enough to recognise a device's location, too little to find it: the /24 of IPv4, the /48 of IPv6."""
    return str(ip_network((address, 24 if address.version == 4 else 48), strict=False))


def _is_trusted(address: Address, trusted_proxies: Sequence[Network]) -> bool:
    return any(address in network for network in trusted_proxies)


def _address(text: str) -> Address | None:
    try:
        found = ip_address(text.strip("[]"))
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if found.version == 6 else found
