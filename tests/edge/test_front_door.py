"""One port over real sockets: routing, admission, deadlines, limits, TLS."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path

import pytest

from server.edge.limits import EdgeLimits
from server.edge.tls import ReloadingTls
from server.errors import ConfigError
from tests.edge.conftest import Run
from tests.support.certificate import write_certificate
from tests.support.edge_server import EdgeServer, edge_server
from tests.support.ws_client import TEXT, WsClient, raw_client, upgrade_request, ws_client, ws_frame

GET = b"GET /headers HTTP/1.1\r\nHost: a\r\n\r\n"


async def answer(edge: EdgeServer, data: bytes) -> bytes:
    async with raw_client(edge.port, data) as client:
        return await client.rest()


def test_media_and_http_share_the_port(run: Run) -> None:
    async def main() -> None:
        async with edge_server() as edge, ws_client(edge.port, "/media/echo/1", "X-Twilio-Signature: s") as client:
            assert (await answer(edge, GET)).startswith(b"HTTP/1.1 200 ")
            client.send(b"hello")
            assert await client.message() == b"hello"
            path, headers = edge.router.admitted[0]
            assert (path, headers["x-twilio-signature"]) == ("/media/echo/1", "s")

    run(main())


def test_a_head_may_come_byte_by_byte(run: Run) -> None:
    async def main() -> None:
        async with edge_server() as edge:
            for request in (GET, upgrade_request("/media/echo/1")):
                async with raw_client(edge.port) as client:
                    for at in range(len(request)):
                        client.write(request[at : at + 1])
                        await client.writer.drain()
                    head = await client.reader.readuntil(b"\r\n\r\n")
                    assert head.split(b" ")[1] == (b"200" if request is GET else b"101")

    run(main())


def test_unknown_stream_is_refused_before_the_upgrade(run: Run) -> None:
    async def main() -> None:
        async with edge_server() as edge:
            text = await answer(edge, upgrade_request("/media/unknown/1"))
            assert text.startswith(b"HTTP/1.1 403 Forbidden\r\n") and b"Connection: close\r\n" in text
            assert b"Upgrade" not in text
            assert edge.router.handlers == [] and edge.refused("not_admitted") == 1

    run(main())


def test_a_refused_peer_that_sent_more_still_reads_why(run: Run) -> None:
    async def main() -> None:
        async with edge_server() as edge:
            request = upgrade_request("/media/unknown/1") + ws_frame(TEXT, bytes(30_000))
            assert (await answer(edge, request)).startswith(b"HTTP/1.1 403")

    run(main())


def test_admission_has_a_deadline(run: Run) -> None:
    async def main() -> None:
        async with edge_server(EdgeLimits(admit_ms=50)) as edge:
            assert (await answer(edge, upgrade_request("/media/slow"))).startswith(b"HTTP/1.1 503")
            assert edge.refused("admit_late") == 1

    run(main())


def test_nothing_is_read_while_admission_waits(run: Run) -> None:
    async def main() -> None:
        async with (
            edge_server(EdgeLimits(admit_ms=30_000)) as edge,
            raw_client(edge.port, upgrade_request("/media/slow")) as client,
        ):
            while not edge.router.admitted:
                await asyncio.sleep(0)
            # More than the kernel takes: the client must be held up, not our memory filled.
            client.write(ws_frame(TEXT, b"x" * 1_000) * 20_000)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await client.writer.drain()
                    while client.writer.transport.get_write_buffer_size():
                        await asyncio.sleep(0.01)
            edge.router.release.set()
            assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")

    run(main())


def test_peer_that_leaves_during_admission(run: Run) -> None:
    async def main() -> None:
        async with edge_server() as edge:
            async with raw_client(edge.port, upgrade_request("/media/slow")):
                while not edge.router.admitted:
                    await asyncio.sleep(0)
            edge.router.release.set()
            async with asyncio.timeout(5):
                while edge.door.waiting_connections or edge.metrics.media_open._value.get():
                    await asyncio.sleep(0.01)
            assert edge.door._peers.open_total == 0

    run(main())


def test_a_broken_router_is_a_503(run: Run) -> None:
    async def main() -> None:
        async with edge_server() as edge:
            assert (await answer(edge, upgrade_request("/media/broken"))).startswith(b"HTTP/1.1 503")

    run(main())


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /media/echo/1 HTTP/1.1\r\nHost: a\r\n\r\n", b"426"),
        (b"POST /media/echo/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", b"404"),
        (b"GET http://a/media/echo/1 HTTP/1.1\r\nHost: a\r\n\r\n", b"404"),
        (b"GET /%6dedia/echo/1 HTTP/1.1\r\nHost: a\r\n\r\n", b"404"),
        (b"GET //media/echo/1 HTTP/1.1\r\nHost: a\r\n\r\n", b"404"),
        (b"GET /x/../media/echo/1 HTTP/1.1\r\nHost: a\r\n\r\n", b"404"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505"),
        (b"GET / HTTP/1.1\nHost: a\n\n" + upgrade_request("/media/echo/1"), b"400"),
        (b"x" * 8_192, b"431"),
    ],
)
def test_refusals(run: Run, data: bytes, status: bytes) -> None:
    async def main() -> None:
        async with edge_server() as edge:
            text = await answer(edge, data)
            assert text.split(b" ")[1] == status
            assert edge.router.admitted == []

    run(main())


def test_unfinished_head_is_ended_in_time(run: Run) -> None:
    async def main() -> None:
        async with edge_server(EdgeLimits(head_ms=80)) as edge:
            async with raw_client(edge.port) as silent, raw_client(edge.port, b"GET / HT") as slow:
                assert (await slow.rest()).startswith(b"HTTP/1.1 408")
                assert await silent.ended()
            assert edge.refused("head_late") == 2
            assert edge.door.waiting_connections == 0 and edge.door._peers.open_total == 0

    run(main())


def test_refused_peer_that_stays_is_cut_off(run: Run) -> None:
    async def main() -> None:
        async with (
            edge_server(EdgeLimits(answer_linger_ms=80)) as edge,
            raw_client(edge.port, b"bad\r\n\r\n") as client,
        ):
            await client.rest()
            async with asyncio.timeout(5):
                while edge.door.waiting_connections:
                    await asyncio.sleep(0.01)

    run(main())


def test_places_of_a_peer_are_given_back(run: Run) -> None:
    async def main() -> None:
        limits = EdgeLimits(exempt_networks=(), open_per_peer=2, connections_burst=1_000)
        async with edge_server(limits) as edge:
            async with ws_client(edge.port), ws_client(edge.port), ws_client(edge.port):
                assert edge.door._peers.open_total == 0, "media does not count"
                async with raw_client(edge.port), raw_client(edge.port):
                    while edge.door.waiting_connections < 2:
                        await asyncio.sleep(0)
                    async with raw_client(edge.port, GET) as third:
                        assert await third.rest_or_reset() == b""
                    assert edge.refused("open_per_peer") == 1
            while edge.door._peers.open_total:
                await asyncio.sleep(0.01)
            for _ in range(5):
                assert (await answer(edge, GET)).startswith(b"HTTP/1.1 200")

    run(main())


def test_rate_of_a_peer(run: Run) -> None:
    async def main() -> None:
        limits = EdgeLimits(exempt_networks=(), connections_burst=3, connections_per_s=0.001)
        async with edge_server(limits) as edge:
            results = []
            for _ in range(5):
                async with raw_client(edge.port, GET) as client:
                    results.append(bool(await client.rest_or_reset()))
            assert results == [True, True, True, False, False]
            assert edge.refused("rate") == 2

    run(main())


def test_drain_keeps_media_and_takes_nothing_new(run: Run) -> None:
    async def main() -> None:
        async with edge_server() as edge, ws_client(edge.port) as client:
            edge.door.stop_listening()
            with pytest.raises(ConnectionRefusedError):
                async with raw_client(edge.port):
                    pass
            client.send(b"still here")
            assert await client.message() == b"still here"

    run(main())


def test_two_doors_share_a_port() -> None:
    async def main() -> None:
        async with edge_server() as first, edge_server() as second:
            port = await first.door.serve("127.0.0.1", 0, reuse_port=True)
            assert await second.door.serve("127.0.0.1", port, reuse_port=True) == port
            for _ in range(50):
                async with ws_client(port) as client:
                    client.send(b"x")
                    await client.message()
            assert first.router.handlers and second.router.handlers

    asyncio.run(main())


def client_context(cert_file: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(cert_file))
    context.check_hostname = False
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def serial(client: WsClient) -> str:
    return client.writer.get_extra_info("peercert")["serialNumber"]


def test_tls_serves_both_and_changes_its_certificate(run: Run, tmp_path: Path) -> None:
    cert, key, other = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "other"
    other.mkdir()
    write_certificate(cert, key, serial=0x11)
    trusts_first = client_context(cert)
    write_certificate(other / "cert.pem", other / "key.pem", serial=0x22)

    async def main() -> None:
        tls = ReloadingTls(cert, key)
        async with edge_server(tls=tls) as edge, ws_client(edge.port, tls=trusts_first) as old:
            assert old.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
            async with ws_client(edge.port, request=GET, tls=trusts_first) as http:
                assert http.status == 200 and serial(http) == "11"
            os.replace(other / "cert.pem", cert)
            assert tls.reload_if_changed() is False, "the key does not fit: the old pair stays"
            async with ws_client(edge.port, tls=trusts_first) as client:
                assert serial(client) == "11"
            os.replace(other / "key.pem", key)
            assert tls.reload_if_changed() is True
            async with ws_client(edge.port, tls=client_context(cert)) as client:
                assert serial(client) == "22"
                client.send(b"new" * 10_000)
                assert await client.message() == b"new" * 10_000
            old.send(b"old")
            assert await old.message() == b"old"

    run(main())


def test_a_wrong_certificate_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="TLS_CERT_FILE"):
        ReloadingTls(tmp_path / "none.pem", tmp_path / "none.key")
