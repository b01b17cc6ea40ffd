"""The address guard: which hosts may be reached.

A name is resolved once, every address it has is checked, and the caller connects to a checked address: a
second look-up (DNS rebinding) has no chance.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass, field

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in ("169.254.169.254", "100.100.100.200", "fd00:ec2::254", "192.0.0.192")
)
"""Where clouds serve credentials of the machine (AWS, GCP, Azure; Alibaba; AWS by IPv6; Oracle)."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NAMES = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:")


class AddressRefused(Exception):  # noqa: N818 - it names what has happened
    """A host may not or cannot be reached. ``code`` is stable: HOST_INVALID, HOST_NOT_FOUND or
    ADDRESS_NOT_ALLOWED; ``may_pass`` tells that trying again can help."""

    def __init__(self, code: str, message: str, *, may_pass: bool = False, **details: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.may_pass = may_pass
        self.details = details


@dataclass(frozen=True)
class AddressGuard:
    """The operator's policy.  By default only public addresses may be reached.

    ``allowed_networks`` (CIDR) opens private ranges; ``denied_endpoints`` (host or address, port) are never
    reached whatever else is allowed, which keeps users away from the databases and brokers of the product
    itself. Metadata, link-local, multicast and unspecified addresses cannot be allowed.
    """

    allow_loopback: bool = False
    allowed_networks: tuple[str, ...] = ()
    denied_endpoints: tuple[tuple[str, int], ...] = ()
    _networks: tuple[IPNetwork, ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        networks = tuple(ipaddress.ip_network(text) for text in self.allowed_networks)
        object.__setattr__(self, "_networks", networks)

    async def resolve(self, host: str, port: int) -> tuple[str, ...]:
        """The addresses of ``host``, each checked, in the resolver's order.

        :raises AddressRefused: HOST_INVALID, HOST_NOT_FOUND, ADDRESS_NOT_ALLOWED.
        """
        if not host or len(host) > 253 or not set(host) <= _NAMES:
            raise AddressRefused(
                "HOST_INVALID", "the host is not a host name or an IP address", host=repr(host)
            )
        addresses = await _look_up(host, port)
        denied = await self._denied_addresses(port)
        for address in addresses:
            reason = self._refusal(host, address, port, denied)
            if reason is not None:
                raise AddressRefused(
                    "ADDRESS_NOT_ALLOWED",
                    f"{host}:{port} may not be reached: {reason}",
                    host=host,
                    port=str(port),
                )
        return tuple(str(address) for address in addresses)

    def _refusal(self, host: str, address: IPAddress, port: int, denied: frozenset[IPAddress]) -> str | None:
        """Why ``address`` may not be reached, or None when it may."""
        inner = _innermost(address)
        names = {name.lower() for name, denied_port in self.denied_endpoints if denied_port == port}
        if (
            host.lower() in names
            or inner in denied
            or (inner.is_loopback and any(a.is_loopback for a in denied))
        ):
            return "it belongs to this installation itself"
        if inner in _METADATA:
            return "it is a metadata address"
        if inner.is_link_local or inner.is_multicast or inner.is_unspecified:
            return "it is a link-local, multicast or unspecified address"
        if inner.is_loopback:
            return (
                None if self.allow_loopback or self._listed(inner) else "loopback addresses are not allowed"
            )
        if inner.is_global or self._listed(inner):
            return None
        return "it is not a public address, and the operator has not allowed its network"

    def _listed(self, address: IPAddress) -> bool:
        return any(address.version == network.version and address in network for network in self._networks)

    async def _denied_addresses(self, port: int) -> frozenset[IPAddress]:
        found: set[IPAddress] = set()
        for host, denied_port in self.denied_endpoints:
            if denied_port != port:
                continue
            try:
                found.update(_innermost(address) for address in await _look_up(host, port))
            except AddressRefused as error:
                if error.may_pass:
                    raise  # whether it is ours cannot be told now: rather later than wrongly
        return frozenset(found)


async def _look_up(host: str, port: int) -> list[IPAddress]:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise AddressRefused(
                "HOST_NOT_FOUND", f"{host} cannot be resolved now", may_pass=True, host=host
            ) from error
        raise AddressRefused("HOST_NOT_FOUND", f"{host} is not a known host", host=host) from error
    except UnicodeError as error:
        raise AddressRefused("HOST_INVALID", "the host is not a valid name", host=repr(host)) from error
    unique = dict.fromkeys(str(entry[4][0]) for entry in found)
    return [ipaddress.ip_address(text) for text in unique]


def _innermost(address: IPAddress) -> IPAddress:
    """The IPv4 address that an IPv6 address carries inside (mapped, 6to4, NAT64, Teredo), else the
    address."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
