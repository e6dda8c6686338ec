"""Which hosts a URL may lead to: names as they are asked for, addresses as they are connected to.

Python's `is_global` is one voice of two: before 3.12.4 its tables were older (CVE-2024-4032), and multicast passes it.
"""

from __future__ import annotations

import ipaddress
import re
from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address

_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

# https://www.iana.org/assignments/iana-ipv4-special-registry and its sibling for IPv6: all that no one should reach
# from outside of it, and what wraps an address of the other kind.
_APART_4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
    )
)
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")
_APART_6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # Teredo, benchmarks, ORCHID
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def canonical_host(host: str) -> str:
    """A host as the network asks for it: lower case, ASCII, without the dot at the end.

    Raises ValueError for what is neither a name nor an address in its one usual spelling: 2130706433, 0x7f.1 and 127.1
    are 127.0.0.1 to a resolver, and something else to whoever reads the URL.
    """
    if ":" in host:
        address = IPv6Address(host)
        if address.scope_id is not None:
            raise ValueError("the address names a network interface")
        return str(address)
    # The UnicodeError of a malformed name is a ValueError.  Wide digits and dots become plain ones here.
    made = (host if host.isascii() else host.encode("idna").decode("ascii")).lower().removesuffix(".")
    if len(made) > 253 or not _NAME.fullmatch(made):
        raise ValueError("the host is no name")
    if _NUMBER.fullmatch(made.rpartition(".")[2]):
        return str(IPv4Address(made))
    return made


def is_public(address: Address) -> bool:
    """Whether an address is one of the internet's, and all that is wrapped in it too."""
    inner = unwrapped(address)
    if not inner.is_global or inner.is_multicast or inner.is_reserved:
        return False
    if isinstance(inner, IPv4Address):
        return not any(inner in network for network in _APART_4)
    return inner in _PUBLIC_6 and not any(inner in network for network in _APART_6)


def may_reach(address: Address, private: bool) -> bool:
    """Whether to connect there.  `private` opens this machine and its network, though nothing link-local: that is where
    clouds answer with credentials (169.254.169.254)."""
    inner = unwrapped(address)
    if inner.is_link_local or inner.is_multicast or inner.is_unspecified:
        return False
    return private or is_public(address)


def unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for (mapped, or through NAT64); else itself."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def may_ask(host: str, allowed: tuple[str, ...]) -> bool:
    """Whether a canonical host is in a list of names; "*.example.com" are all below example.com."""
    for pattern in allowed:
        wanted = pattern.lower().removesuffix(".")
        if host == wanted or (wanted.startswith("*.") and host.endswith(wanted[1:])):
            return True
    return False
