"""Which addresses a tool may be at: public ones, and the private hosts that the operator names.

A model, or whoever writes an agent, must not reach what only this machine can: each address that a name stands for is
checked at the moment of connecting, and the connection goes to that very address, so that a name cannot change its
mind in between. An IPv6 address that carries an IPv4 one (mapped, 6to4, Teredo, NAT64) counts as both.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpcore

MAX_ADDRESSES = 16
MAX_LOOKUPS = 8
# Translators of IPv4 within one's own network (RFC 8215, RFC 7915), and of segment routing (RFC 9602).
_CARRIERS = ("64:ff9b:1::/48", "::ffff:0:0:0/96", "5f00::/16")
# The standard library's lists differ between its versions: of protocol assignments, site-local, IPv4-compatible.
_NOBODYS = tuple(ipaddress.ip_network(one) for one in ("192.0.0.0/24", "fec0::/10", "::/96", *_CARRIERS))
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressRefused(Exception):
    """The host is at an address that tools may not reach."""


def is_public(address: str) -> bool:
    """Whether everybody on the internet can reach it too. Raises ValueError for what is no IP address."""
    one = ipaddress.ip_address(address.partition("%")[0])
    return all(
        part.is_global and not part.is_multicast and not any(part in network for network in _NOBODYS)
        for part in _faces(one)
    )


def _faces(one: Address) -> Iterator[Address]:
    yield one
    if isinstance(one, ipaddress.IPv6Address):
        carried: Iterable[Address | None] = (one.ipv4_mapped, one.sixtofour, *(one.teredo or ()))
        yield from (part for part in carried if part is not None)
        if one in _NAT64:
            yield ipaddress.IPv4Address(int(one) & 0xFFFFFFFF)


class GuardedNetwork(httpcore.AsyncNetworkBackend):
    """Connects as httpcore does, to addresses that were checked. `private_hosts`: names that may be anywhere."""

    def __init__(self, private_hosts: Collection[str]) -> None:
        self._private_hosts = frozenset(private_hosts)
        self._inner = httpcore.AnyIOBackend()
        # Threads of their own: a name whose servers are dead holds one for as long as the resolver likes, and those
        # of the loop are few and look up the names of providers.
        self._lookups = ThreadPoolExecutor(MAX_LOOKUPS, "tool lookup")

    def close(self) -> None:
        self._lookups.shutdown(wait=False, cancel_futures=True)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises AddressRefused, httpcore.ConnectError, httpcore.ConnectTimeout."""
        try:
            async with asyncio.timeout(timeout):
                look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
                found = await asyncio.get_running_loop().run_in_executor(self._lookups, look_up)
        except TimeoutError:
            raise httpcore.ConnectTimeout(f"{host}: no address in time") from None
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host}: {error}") from None
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))[:MAX_ADDRESSES]
        if host not in self._private_hosts:
            # One private address among public ones is no accident.
            for address in addresses:
                if not is_public(address):
                    raise AddressRefused(f"{host} is at {address}, which is not public (TOOL_PRIVATE_HOSTS)")
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        raise AddressRefused("no unix sockets")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)
