"""Where tools may be: no address that only this machine or its network can reach, in whatever form it is written."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import httpcore
import pytest

from server.tool.address import AddressRefused, GuardedNetwork, is_public

PRIVATE = (
    "127.0.0.1", "127.8.9.1", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "192.0.0.8", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "203.0.113.9",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12:3456::1", "ff02::1", "2001:db8::1", "fec0::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "2002:7f00:1::", "2002:a9fe:a9fe::", "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe", "::7f00:1", "::8.8.8.8", "64:ff9b::10.1.2.3",
    "64:ff9b:1::7f00:1", "::ffff:0:127.0.0.1", "5f00::1",
)  # fmt: skip
PUBLIC = ("93.184.216.34", "8.8.8.8", "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8")


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_none_of_a_tools(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_one_is(address: str) -> None:
    assert is_public(address)


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """A resolver that gives one of `answers` after the other; returns what it was asked for."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in found]

    monkeypatch.setattr("server.tool.address.socket.getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize("found", [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["8.8.8.8", "::1"], ["169.254.169.254"]])
def test_a_name_with_a_private_address_among_its_own_is_refused(
    found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        resolving(monkeypatch, found)
        with pytest.raises(AddressRefused, match="not public"):
            await GuardedNetwork(()).connect_tcp("tools.example", 443, timeout=1.0)

    asyncio.run(run())


def test_a_name_that_changes_its_mind_is_looked_at_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Public when it is checked, private when it is connected to: the connection goes to what was checked."""

    async def run() -> None:
        reached = 0

        async def on_connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal reached
            reached += 1
            writer.close()

        server = await asyncio.start_server(on_connect, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        asked = resolving(monkeypatch, ["192.0.2.1"], ["127.0.0.1"])
        network = GuardedNetwork(())
        for _ in range(2):
            with pytest.raises(AddressRefused):
                await network.connect_tcp("rebind.example", port, timeout=1.0)
        assert (asked, reached) == (["rebind.example"] * 2, 0)
        stream = await GuardedNetwork(["rebind.example"]).connect_tcp("rebind.example", port, timeout=5.0)
        await stream.aclose()
        assert reached == 1
        server.close()
        await server.wait_closed()

    asyncio.run(run())


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 300, "exa mple", "\udcff"])
def test_a_name_that_is_none_is_a_failed_connection(host: str) -> None:
    async def run() -> None:
        with pytest.raises((httpcore.ConnectError, httpcore.ConnectTimeout)):
            await GuardedNetwork(()).connect_tcp(host, 443, timeout=5.0)

    asyncio.run(run())


@pytest.mark.parametrize("literal", ["127.0.0.1", "0x7f000001", "2130706433", "127.1", "localhost", "::1"])
def test_other_ways_to_write_this_machine_are_seen_through(literal: str) -> None:
    async def run() -> None:
        with pytest.raises((AddressRefused, httpcore.ConnectError)):
            await GuardedNetwork(()).connect_tcp(literal, 9, timeout=5.0)

    asyncio.run(run())


def test_names_that_nobody_answers_for_hold_up_no_other_lookups(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider's name is looked up by the loop while every lookup of tools hangs."""

    async def run() -> None:
        go_on, looking = threading.Event(), socket.getaddrinfo

        def getaddrinfo(host: str, *given: Any, **more: Any) -> Any:
            if host == "dead.example":
                go_on.wait(20)
                raise OSError("no answer")
            return looking(host, *given, **more)

        monkeypatch.setattr("server.tool.address.socket.getaddrinfo", getaddrinfo)
        network = GuardedNetwork(())
        stuck = [asyncio.create_task(network.connect_tcp("dead.example", 443)) for _ in range(40)]
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            assert await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 443)
        go_on.set()
        failed = await asyncio.gather(*stuck, return_exceptions=True)
        assert {type(one) for one in failed} == {httpcore.ConnectError}
        network.close()

    asyncio.run(run())
