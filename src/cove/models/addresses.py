"""Which addresses are places on the public internet, and which ones only look like it.

The lists are those of the IANA special-purpose address registries (RFC 6890), written out: the standard library's
opinion has changed between patch releases.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

_SPECIAL_V4: tuple[tuple[IPv4Network, str], ...] = tuple(
    (IPv4Network(network), kind)
    for network, kind in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared by carriers (CGNAT)"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "a cloud's metadata service"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "reserved"),
        ("192.88.99.0/24", "reserved"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "reserved"),
        ("198.51.100.0/24", "reserved"),
        ("203.0.113.0/24", "reserved"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
_SPECIAL_V6: tuple[tuple[IPv6Network, str], ...] = tuple(
    (IPv6Network(network), kind)
    for network, kind in (
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "reserved"),
        ("2002::/16", "a 6to4 address"),
        ("3fff::/20", "reserved"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "private"),
        ("ff00::/8", "multicast"),
    )
)
_GLOBAL_V6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")


def why_not_public(address: IpAddress) -> str | None:
    """What kind of address it is if it is not a public one, in words; None if it is."""
    inner = embedded(address)
    if isinstance(inner, IPv4Address):
        return next((kind for network, kind in _SPECIAL_V4 if inner in network), None)
    if inner.scope_id is not None:
        return "link-local"
    kind = next((kind for network, kind in _SPECIAL_V6 if inner in network), None)
    return kind or (None if inner in _GLOBAL_V6 else "reserved")


def embedded(address: IpAddress) -> IpAddress:
    """The IPv4 address that an IPv4-mapped (RFC 4291) or NAT64 (RFC 6052) one leads to; else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def literal(host: str) -> IpAddress | None:
    """The address that `host` is written as, in the one usual notation; None for a name.

    Raises:
        ValueError: it is a number in another notation (decimal, octal, hexadecimal, too few parts), which some
            programs take for an address and others for a name.
    """
    if ":" in host:
        return ip_address(host)
    last = host.rsplit(".", 1)[-1]
    if last.isdigit() or last.startswith("0x"):
        # The URL standard's rule of when a host is meant as a number (url.spec.whatwg.org, "ends in a number").
        return IPv4Address(host)
    return None
