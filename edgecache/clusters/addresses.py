"""Which addresses a cluster's name may lead to. Pure.

Keeps: whoever answers for a name in DNS can't send what is said, and our credentials, to this machine itself, to its link,
or to the metadata service of a cloud (DNS rebinding, faults.md row 24), unless the operator said so: by an address in the
URL, by `localhost`, or by `pool.allow_networks`. Private networks are where clusters live, and are no one's business.
"""

import ipaddress
from collections.abc import Sequence

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Services that tell a machine its secrets: of most clouds, and those at addresses that would pass, of AWS (over IPv6),
#: Alibaba, Oracle and Azure.
METADATA = frozenset(
    map(
        ipaddress.ip_address,
        ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16"),
    )
)
#: IPv6 addresses that stand for an IPv4 one (RFC 6052 §2.1).
NAT64 = ipaddress.ip_network("64:ff9b::/96")
BROADCAST = ipaddress.ip_address("255.255.255.255")


def networks(written: Sequence[str]) -> tuple[Network, ...]:
    """Those of the configuration. ValueError: one is none."""
    return tuple(ipaddress.ip_network(each) for each in written)


def objection(name: str, address: str, allowed: Sequence[Network]) -> str:
    """What speaks against connecting to this address when that name was meant; empty: nothing."""
    reached = _reached(ipaddress.ip_address(address))
    kind = _kind(reached)
    if not kind or (kind == "loopback" and _is_localhost(name)):
        return ""
    return "" if any(reached in each for each in allowed if each.version == reached.version) else kind


def _is_localhost(name: str) -> bool:
    """Names that mean this machine (RFC 6761 §6.3)."""
    return f".{name.lower().rstrip('.')}".endswith(".localhost")


def _reached(address: IpAddress) -> IpAddress:
    """Whom a connection to it reaches: an IPv4 address, where an IPv6 one is only its clothes."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or ipaddress.IPv6Address(int(address))  # without its scope


def _kind(address: IpAddress) -> str:
    if address in METADATA:
        return "a metadata service"
    if address.is_loopback:
        return "loopback"
    if address.is_link_local:
        return "link-local"
    if address.is_unspecified or (address.version == 4 and int(address) >> 24 == 0):
        return "unspecified"
    return "multicast" if address.is_multicast or address == BROADCAST else ""
