"""MediaSocket over real sockets, and the contract with picows' internals."""

from __future__ import annotations

import asyncio
import inspect
import socket
from importlib.metadata import version

import picows
import pytest
from picows.picows import WSProtocol

from server.edge.media_socket import READ_BYTES, MediaLimits, MediaProtocol, MediaSocket
from tests.edge.conftest import Run
from tests.support.edge_server import EchoHandler, edge_server
from tests.support.ws_client import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    raw_client,
    upgrade_request,
    ws_client,
    ws_frame,
    ws_frame_head,
)


async def closed(handler: EchoHandler) -> list[int]:
    async with asyncio.timeout(5):
        await handler.closed_event.wait()
    return handler.closed


def test_contract_with_picows(run: Run) -> None:
    """What media_socket.py uses of picows' internals; a new version has to pass this before the pin moves."""
    assert version("picows") == "2.3.1"

    async def main() -> None:
        listener = MediaSocket("/media/x", EchoHandler, MediaLimits())
        protocol = MediaProtocol(listener, MediaLimits(), None)
        assert isinstance(protocol, WSProtocol)
        # Overridden in Python, and so called by both loops.
        assert inspect.isfunction(MediaProtocol.get_buffer)
        assert len(protocol.get_buffer(65_536)) <= READ_BYTES
        assert {"TEXT", "BINARY", "CONTINUATION", "PING", "PONG", "CLOSE"} == set(picows.WSMsgType.__members__)

    run(main())


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_echo_keeps_kind_and_size(run: Run, size: int) -> None:
    async def main() -> None:
        async with edge_server() as edge, ws_client(edge.port) as client:
            for opcode in (TEXT, BINARY):
                client.send(b"x" * size, opcode)
                async with asyncio.timeout(5):
                    assert await client.frame() == (opcode, b"x" * size)
            assert [is_text for _, is_text in edge.router.handlers[0].messages] == [True, False]

    run(main())


def test_messages_in_pieces_of_every_size_are_the_same(run: Run) -> None:
    stream = b"".join(ws_frame(TEXT, b"%d" % n * n) for n in range(40))

    async def main() -> None:
        async with edge_server() as edge:
            for piece in (1, 2, 3, 7, 64, len(stream)):
                async with ws_client(edge.port) as client:
                    for at in range(0, len(stream), piece):
                        client.write(stream[at : at + piece])
                        await client.writer.drain()
                    assert [await client.message() for _ in range(40)] == [b"%d" % n * n for n in range(40)]

    run(main())


def test_bytes_sent_with_the_upgrade_are_not_lost(run: Run) -> None:
    early = [b"early", b"y" * 40_000]

    async def main() -> None:
        request = upgrade_request("/media/echo/1") + b"".join(ws_frame(TEXT, m) for m in early)
        async with edge_server() as edge, ws_client(edge.port, request=request) as client:
            assert [await client.message() for _ in early] == early

    run(main())


def test_messages_go_where_they_are_wanted_from_now_on(run: Run) -> None:
    later: list[tuple[bytes, bool]] = []

    async def main() -> None:
        async with edge_server() as edge, ws_client(edge.port) as client:
            client.send(b"first", TEXT)
            assert await client.message() == b"first"
            handler = edge.router.handlers[0]
            handler.socket.deliver_to(lambda data, is_text: later.append((data, is_text)))
            client.send(b"second", TEXT)
            client.write(ws_frame(BINARY, b"th", fin=False) + ws_frame(CONTINUATION, b"ird") + ws_frame(CLOSE))
            await closed(handler)
            assert [data for data, _ in handler.messages] == [b"first"]
            handler.socket.deliver_to(lambda data, is_text: None)  # the line is gone: nothing to take over

    run(main())
    assert later == [(b"second", True), (b"third", False)]


def test_fragments_become_one_message_with_pings_between(run: Run) -> None:
    async def main() -> None:
        async with edge_server() as edge, ws_client(edge.port) as client:
            client.write(ws_frame(BINARY, b"a" * 30_000, fin=False))
            client.write(ws_frame(PING, b"still there?"))
            client.write(ws_frame(CONTINUATION, b"", fin=False) + ws_frame(CONTINUATION, b"b" * 35_536))
            assert await client.message() == b"a" * 30_000 + b"b" * 35_536
            assert client.pongs == [b"still there?"]
            assert edge.router.handlers[0].messages[0][1] is False

    run(main())


@pytest.mark.parametrize(
    ("attack", "code"),
    [
        pytest.param(ws_frame_head(TEXT, 65_537), 1009, id="one message too big, by its head alone"),
        pytest.param(ws_frame_head(TEXT, 300 << 20), 1009, id="300 MiB announced"),
        pytest.param(
            ws_frame(TEXT, bytes(65_536), fin=False) + ws_frame(CONTINUATION, b"x"), 1009, id="fragments too big"
        ),
        pytest.param(ws_frame(CONTINUATION, b"x"), 1002, id="continuation of nothing"),
        pytest.param(ws_frame(TEXT, b"x", fin=False) + ws_frame(TEXT, b"x"), 1002, id="message inside a message"),
        pytest.param(ws_frame(TEXT, b"x", rsv1=True), 1002, id="compressed frame"),
        pytest.param(ws_frame(TEXT, b"x", masked=False), 1002, id="unmasked"),
        pytest.param(ws_frame(0x3, b"x"), 1002, id="reserved opcode"),
        pytest.param(ws_frame(PING, b"x" * 126), 1002, id="long ping"),
        pytest.param(ws_frame(PING, b"x", fin=False), 1002, id="fragmented ping"),
        pytest.param(ws_frame(CLOSE, b"x"), 1002, id="close with half a code"),
        pytest.param(ws_frame(TEXT, b"x") * 1_001, 1008, id="flood of messages"),
        pytest.param(ws_frame(PING) * 1_001, 1008, id="flood of pings"),
        pytest.param(
            ws_frame(TEXT, b"", fin=False) + ws_frame(CONTINUATION, b"", fin=False) * 1_001, 1008, id="empty fragments"
        ),
        pytest.param(ws_frame(TEXT, b"raise"), 1011, id="our handler breaks"),
    ],
)
def test_broken_rules_close_with_their_code_and_end(run: Run, attack: bytes, code: int) -> None:
    async def main() -> None:
        limits = MediaLimits(close_linger_ms=40)
        async with edge_server(media_limits=limits) as edge, ws_client(edge.port) as client:
            client.write(attack)
            assert await client.close_code() == code
            assert await closed(edge.router.handlers[0]) == [code]
            assert await client.ended()
            assert edge.metrics.registry.get_sample_value("media_connections") == 0

    run(main())


def test_a_rate_within_the_bound_is_not_a_flood(run: Run) -> None:
    async def main() -> None:
        limits = MediaLimits(frames_per_s=50)
        async with edge_server(media_limits=limits) as edge, ws_client(edge.port) as client:
            client.write(ws_frame(TEXT, b"x") * 50)
            assert [await client.message() for _ in range(50)] == [b"x"] * 50
            # As if a second had passed since the allowance began.
            edge.router.handlers[0].socket._budget_from_s -= 1.0
            client.write(ws_frame(TEXT, b"y") * 50)
            assert [await client.message() for _ in range(50)] == [b"y"] * 50

    run(main())


def test_peer_closes(run: Run) -> None:
    async def main() -> None:
        async with edge_server() as edge:
            for payload, reported, answered in (
                (b"\x03\xe8bye", 1000, 1000),
                (b"", 1005, 1000),
                (b"\x0f\xa2", 4002, 4002),
            ):
                async with ws_client(edge.port) as client:
                    client.write(ws_frame(CLOSE, payload))
                    assert await client.close_code() == answered
                    assert await closed(edge.router.handlers[-1]) == [reported]
                    assert await client.ended()

    run(main())


def test_peer_vanishes(run: Run) -> None:
    async def main() -> None:
        async with edge_server() as edge:
            async with ws_client(edge.port):
                pass
            assert await closed(edge.router.handlers[0]) == [1006]

    run(main())


def test_we_close_and_do_not_wait_for_ever(run: Run) -> None:
    async def main() -> None:
        async with edge_server(media_limits=MediaLimits(close_ms=50)) as edge, ws_client(edge.port) as client:
            client.send(b"close")
            assert await client.close_code() == 4001
            # The client does not answer; what it sends now is not for the handler any more.
            client.send(b"too late")
            assert await closed(edge.router.handlers[0]) == [4001]
            assert await client.ended()
            assert edge.router.handlers[0].messages == [(b"close", True)]

    run(main())


def test_abort_is_immediate_and_sends_nothing_more(run: Run) -> None:
    async def main() -> None:
        async with edge_server() as edge, ws_client(edge.port) as client:
            handler = edge.router.handlers[0]
            client.send(b"abort")
            assert await client.close_code() == 1006
            assert await closed(handler) == [1006]
            assert handler.sent_after_abort is False
            assert not handler.socket.is_open
            assert handler.socket.send_text(b"x") is False
            assert handler.socket.buffered_bytes == 0

    run(main())


def test_peer_that_does_not_read_is_bounded_and_cut_off(run: Run) -> None:
    async def main() -> None:
        async with edge_server() as edge, ws_client(edge.port) as client:
            handler = edge.router.handlers[0]
            client.writer.transport.pause_reading()
            client.send(b"flood 8000 10000000")
            assert await closed(handler) == [1006]
            assert handler.writable[:1] == [False]

    run(main())


def test_writable_again_when_the_peer_reads(run: Run) -> None:
    async def main() -> None:
        limits = MediaLimits(buffered_bytes=20_000_000)
        async with edge_server(media_limits=limits) as edge, ws_client(edge.port) as client:
            handler = edge.router.handlers[0]
            client.send(b"flood 60000 500000")
            received = 0
            while True not in handler.writable:
                received += len(await client.message())
            assert handler.writable == [False, True]
            assert received > 250_000

    run(main())


def test_pings_of_a_peer_that_does_not_read_queue_no_pongs(run: Run) -> None:
    async def main() -> None:
        limits = MediaLimits(frames_per_s=1_000_000, writable_bytes=4_096)
        async with edge_server(media_limits=limits) as edge, ws_client(edge.port) as client:
            client.writer.transport.pause_reading()
            handler = edge.router.handlers[0]
            for _ in range(400):
                client.write(ws_frame(PING, b"p" * 125) * 200)
                await client.writer.drain()
                assert handler.socket.buffered_bytes < 4_096 + 200
            assert handler.socket.is_open

    run(main())


def test_receive_buffer_is_bounded(run: Run) -> None:
    async def main() -> None:
        limits = MediaLimits(frames_per_s=100_000_000, buffered_bytes=100_000_000)
        async with edge_server(media_limits=limits) as edge, ws_client(edge.port) as client:
            protocol = edge.router.handlers[0].socket._raw.get_protocol()
            for size in (0, 1_000, 65_536):
                client.write(ws_frame(PONG, b"") * 1_000_000 if size == 0 else ws_frame(BINARY, bytes(size)) * 20)
                client.send(b"done")
                while await client.message() != b"done":
                    pass
            # What picows itself would offer to the next read: its whole buffer, as nothing is stored.
            assert len(WSProtocol.get_buffer(protocol, 0)) < 200 * 1_024

    run(main())


def test_nothing_is_read_after_a_failure(run: Run) -> None:
    async def main() -> None:
        limits = MediaLimits(close_linger_ms=60_000)
        async with edge_server(media_limits=limits) as edge, ws_client(edge.port) as client:
            client.write(ws_frame(CONTINUATION, b"x"))
            assert await client.close_code() == 1002
            client.write(bytes(20_000_000))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    while client.writer.transport.get_write_buffer_size():
                        await asyncio.sleep(0.01)

    run(main())


def test_socket_options(run: Run) -> None:
    async def main() -> None:
        async with edge_server() as edge, ws_client(edge.port):
            sock = edge.router.handlers[0].socket._raw.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 5_000
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * 32_768

    run(main())


def test_deflate_is_not_negotiated(run: Run) -> None:
    async def main() -> None:
        offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
        async with edge_server() as edge, ws_client(edge.port, "/media/echo/1", offer) as client:
            assert client.status == 101
            assert b"extensions" not in client.response_head.lower()

    run(main())


def test_one_handlers_failure_is_not_anothers(run: Run) -> None:
    async def main() -> None:
        async with edge_server() as edge, ws_client(edge.port) as bad, ws_client(edge.port) as good:
            bad.send(b"raise")
            assert await bad.close_code() == 1011
            good.send(b"fine")
            assert await good.message() == b"fine"

    run(main())


def test_a_closed_socket_keeps_nothing_alive(run: Run) -> None:
    async def main() -> None:
        async with edge_server() as edge:
            async with raw_client(edge.port, upgrade_request("/media/echo/1")) as client:
                await client.reader.readuntil(b"\r\n\r\n")
            handler = edge.router.handlers[0]
            await closed(handler)
            assert handler.socket._ws is handler.socket._raw is handler.socket._handler is None

    run(main())
