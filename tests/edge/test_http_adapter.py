"""HTTP through Hypercorn over real sockets, and the contract with its internals."""

from __future__ import annotations

import asyncio
import inspect
from importlib.metadata import version

import pytest
from hypercorn.asyncio.lifespan import Lifespan
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.config import Config
from hypercorn.protocol.h11 import H11Protocol
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from server.edge.app import build_app
from server.edge.http_adapter import HttpAdapter
from server.edge.limits import EdgeLimits
from tests.edge.conftest import Run
from tests.support.edge_server import EdgeServer, edge_server
from tests.support.ws_client import raw_client, upgrade_request

MIB = 1_048_576


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "Host: a", *headers]).encode() + b"\r\n\r\n" + body


async def answer(edge: EdgeServer, data: bytes) -> bytes:
    async with raw_client(edge.port, data) as client:
        return await client.rest_or_reset()


def test_contract_with_hypercorn() -> None:
    """What http_adapter.py uses of Hypercorn's internals; a new version has to pass this before the pin moves."""
    assert version("hypercorn") == "0.18.0"
    assert list(inspect.signature(TCPServer).parameters) == [
        "app", "loop", "config", "context", "state", "reader", "writer",
    ]  # fmt: skip
    assert list(inspect.signature(H11Protocol).parameters) == [
        "app", "config", "context", "task_group", "connection_state", "ssl", "client", "server", "send",
    ]  # fmt: skip
    assert list(inspect.signature(Lifespan).parameters) == ["app", "config", "loop", "lifespan_state"]
    for method in (TCPServer.protocol_send, TCPServer._close, TCPServer._read_data, TCPServer._idle_timeout,
                   H11Protocol._check_protocol, H11Protocol._create_stream,
                   H11Protocol._send_error_response):  # fmt: skip
        assert inspect.iscoroutinefunction(method)
    for name in ("errorlog", "accesslog", "include_server_header", "alpn_protocols", "h11_max_incomplete_size",
                 "keep_alive_timeout", "keep_alive_max_requests", "max_app_queue_size", "startup_timeout",
                 "shutdown_timeout"):  # fmt: skip
        assert hasattr(Config, name), name


def test_answers_close_the_connection_and_carry_security_headers(run: Run) -> None:
    async def main() -> None:
        async with edge_server() as edge:
            text = (await answer(edge, request("GET /headers"))).lower()
            assert text.startswith(b"http/1.1 200 ")
            for header in (b"connection: close", b"x-content-type-options: nosniff", b"cache-control: no-store",
                           b"content-security-policy: default-src 'none'"):  # fmt: skip
                assert b"\r\n" + header in text
            assert b"server:" not in text

    run(main())


def test_a_second_request_does_not_reach_media(run: Run) -> None:
    async def main() -> None:
        async with edge_server() as edge:
            # Pipelined behind the first: not even looked at.
            text = await answer(edge, request("GET /headers") + upgrade_request("/media/echo/1"))
            assert text.count(b"HTTP/1.1 ") == 1 and edge.router.admitted == []

    run(main())


@pytest.mark.parametrize("pipelined", [True, False])
def test_a_kept_alive_connection_does_not_reach_media(run: Run, pipelined: bool) -> None:
    async def main() -> None:
        async with (
            edge_server(EdgeLimits(keep_alive_requests=100, keep_alive_ms=200)) as edge,
            raw_client(edge.port, request("GET /livez")) as client,
        ):
            if not pipelined:
                assert b"200" in await client.reader.readuntil(b"ok\n")
            client.write(upgrade_request("/media/echo/1") + upgrade_request("/headers"))
            text = await client.rest()
            statuses = [part.split(b" ")[0] for part in text.split(b"HTTP/1.1 ")[1:]]
            assert statuses == [b"200", b"404", b"200"][0 if pipelined else 1 :]
            assert b"101" not in statuses and edge.router.admitted == []

    run(main())


@pytest.mark.parametrize(
    "data",
    [
        request("GET /headers", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
        upgrade_request("/headers"),
    ],
    ids=["h2c", "websocket"],
)
def test_upgrades_are_ignored(run: Run, data: bytes) -> None:
    async def main() -> None:
        async with edge_server() as edge:
            text = await answer(edge, data)
            assert text.startswith(b"HTTP/1.1 200 ")
            assert b"upgrade:" not in text.lower()

    run(main())


def test_http2_by_prior_knowledge_is_refused_on_a_kept_alive_connection_too(run: Run) -> None:
    async def main() -> None:
        async with edge_server(EdgeLimits(keep_alive_requests=100, keep_alive_ms=200)) as edge:
            text = await answer(edge, request("GET /livez") + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            # No HTTP/2 SETTINGS frame follows, only HTTP/1.
            assert text.startswith(b"HTTP/1.1 200 ")
            assert b"\x00\x00" not in text

    run(main())


def test_content_length_beside_transfer_encoding_is_refused(run: Run) -> None:
    async def main() -> None:
        async with edge_server(EdgeLimits(keep_alive_requests=100)) as edge:
            data = request("POST /body", "Content-Length: 4", "Transfer-Encoding: chunked", body=b"0\r\n\r\n")
            text = await answer(edge, data + request("GET /headers"))
            assert text.startswith(b"HTTP/1.1 400 ") and text.count(b"HTTP/1.1") == 1

    run(main())


def test_bodies_up_to_the_bound(run: Run) -> None:
    async def main() -> None:
        async with edge_server() as edge:
            data = request("POST /body", f"Content-Length: {MIB}", body=bytes(MIB))
            assert (await answer(edge, data)).endswith(b"1048576\n")
            head = request("POST /body", "Transfer-Encoding: chunked")
            chunk = b"%x\r\n" % 65_536 + bytes(65_536) + b"\r\n"
            assert (await answer(edge, head + chunk * 16 + b"0\r\n\r\n")).endswith(b"1048576\n")
            assert edge.metrics.registry.get_sample_value(
                "http_requests_total", {"method": "POST", "status": "200"}
            ) == 2.0  # fmt: skip

    run(main())


def test_bodies_beyond_the_bound(run: Run) -> None:
    async def main() -> None:
        async with edge_server() as edge:
            text = await answer(edge, request("POST /body", f"Content-Length: {MIB + 1}"))
            assert text.startswith(b"HTTP/1.1 413 ") and b"application/problem+json" in text
            async with raw_client(edge.port, request("POST /body", "Transfer-Encoding: chunked")) as client:
                for _ in range(17):
                    client.write(b"%x\r\n" % 65_536 + bytes(65_536) + b"\r\n")
                assert (await client.reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 413 ")

    run(main())


def test_a_slow_body_has_a_deadline(run: Run) -> None:
    async def main() -> None:
        async with edge_server(EdgeLimits(body_ms=80)) as edge:
            text = await answer(edge, request("POST /body", "Content-Length: 100", body=b"a"))
            assert text.startswith(b"HTTP/1.1 408 ")
            # An app that does not read it answers at once, and the connection ends.
            text = await answer(edge, request("POST /ignore", "Content-Length: 100", body=b"a"))
            assert text.endswith(b"ignored\n")

    run(main())


def test_a_peer_that_does_not_read_is_cut_off(run: Run) -> None:
    async def main() -> None:
        async with edge_server(EdgeLimits(write_ms=100)) as edge, raw_client(edge.port) as client:
            client.writer.transport.pause_reading()
            client.write(request("GET /endless"))
            async with asyncio.timeout(5):
                while not edge.http.open_connections:
                    await asyncio.sleep(0.01)
                while edge.http.open_connections or edge.door._peers.open_total:
                    await asyncio.sleep(0.01)

    run(main())


def test_a_connection_that_idles_or_starts_a_second_head_is_ended(run: Run) -> None:
    async def main() -> None:
        async with edge_server(EdgeLimits(keep_alive_requests=100, keep_alive_ms=80)) as edge:
            for more in (b"", b"GET /he"):
                async with raw_client(edge.port, request("GET /livez") + more) as client:
                    assert (await client.rest()).count(b"HTTP/1.1") == 1

    run(main())


def test_a_peer_that_goes_is_forgotten_at_once(run: Run) -> None:
    async def main() -> None:
        async with edge_server(EdgeLimits(keep_alive_requests=100, keep_alive_ms=60_000)) as edge:
            async with raw_client(edge.port, request("GET /livez")) as client:
                await client.reader.readuntil(b"ok\n")
            async with asyncio.timeout(5):
                while edge.http.open_connections or edge.door._peers.open_total:
                    await asyncio.sleep(0.01)

    run(main())


def test_errors_are_problems_and_tell_nothing(run: Run) -> None:
    async def main() -> None:
        async with edge_server() as edge:
            for line, status in (("GET /nope", b"404"), ("DELETE /headers", b"405"), ("GET /crash", b"500")):
                text = await answer(edge, request(line))
                assert text.startswith(b"HTTP/1.1 " + status)
                assert b"application/problem+json" in text and b"nosniff" in text
                assert b'"status":' + status in text and b"secret" not in text

    run(main())


def test_stop_lets_an_answer_finish_and_cuts_the_rest(run: Run) -> None:
    async def main() -> None:
        reached, release = asyncio.Event(), asyncio.Event()

        async def slow(_request: object) -> PlainTextResponse:
            reached.set()
            await release.wait()
            return PlainTextResponse("done\n")

        async def serve(http: HttpAdapter) -> asyncio.Server:
            loop = asyncio.get_running_loop()
            await http.start()

            class Door(asyncio.Protocol):
                def connection_made(self, transport: asyncio.BaseTransport) -> None:
                    self.transport = transport

                def data_received(self, data: bytes) -> None:
                    self.transport.pause_reading()  # type: ignore[attr-defined]
                    http.take_over(self.transport, data, lambda: None)  # type: ignore[arg-type]

            return await loop.create_server(Door, "127.0.0.1", 0)

        for finishes in (True, False):
            reached.clear()
            release.clear()
            http = HttpAdapter(build_app([Route("/slow", slow)]), EdgeLimits())
            server = await serve(http)
            async with raw_client(server.sockets[0].getsockname()[1], request("GET /slow")) as client:
                await reached.wait()
                async with asyncio.TaskGroup() as group:
                    stopping = group.create_task(http.stop(timeout_s=5.0 if finishes else 0.05))
                    if finishes:
                        release.set()
                    text = await client.rest_or_reset()
                assert stopping.done() and text.endswith(b"done\n") is finishes
            server.close()

    run(main())
