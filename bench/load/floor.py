"""What echoing one frame costs on this machine now: a picows server in its own process, CPU per message.

The figure stands beside every capacity result: a run is only comparable with another when their floors are, and a
floor that moved during the run means that something else used the machine.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import psutil
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect, ws_create_server

from bench.sim.sound import SILENCE_B64

ROOT = Path(__file__).resolve().parents[2]
MESSAGES = 30_000
WINDOW = 8
"""Messages in flight: enough to keep the echo busy, few enough to stay message by message."""
MIN_ROUNDS, MAX_ROUNDS = 5, 24
AGREEING, AGREEMENT = 3, 0.04
"""The least is believed when so many rounds come within so much of it: one alone may be luck, and the first rounds may
all have met a busy neighbour."""
START_TIMEOUT_S = 10.0


class _Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()
            return
        transport.send(frame.msg_type, frame.get_payload_as_bytes())


class _Load(WSListener):
    def __init__(self, message: bytes, done: asyncio.Future[None]) -> None:
        self._message = message
        self._done = done
        self._left = MESSAGES
        self._in_flight = 0

    def on_ws_connected(self, transport: WSTransport) -> None:
        for _ in range(WINDOW):
            self._send(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self._in_flight -= 1
        if self._left:
            self._send(transport)
        elif self._in_flight == 0 and not self._done.done():
            self._done.set_result(None)

    def _send(self, transport: WSTransport) -> None:
        self._left -= 1
        self._in_flight += 1
        transport.send(WSMsgType.TEXT, self._message)


async def floor_us_per_frame() -> float:
    """CPU (user + system) of one echoed Twilio frame, the least of the rounds. Raises TimeoutError."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.load.floor",
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = int(await asyncio.wait_for(process.stdout.readline(), START_TIMEOUT_S))
        echo = psutil.Process(process.pid)
        rounds: list[float] = []
        while len(rounds) < MAX_ROUNDS and not _agree(rounds):
            rounds.append(await _round(port, echo))
        return min(rounds)
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            process.kill()
            await process.wait()


def _agree(rounds: list[float]) -> bool:
    near = [one for one in rounds if one <= min(rounds) * (1 + AGREEMENT)]
    return len(rounds) >= MIN_ROUNDS and len(near) >= AGREEING


async def _round(port: int, echo: psutil.Process) -> float:
    message = json.dumps(
        {
            "event": "media",
            "sequenceNumber": "4321",
            "media": {"track": "inbound", "chunk": "4320", "timestamp": "86400", "payload": SILENCE_B64},
            "streamSid": "MZ" + "0" * 32,
        }
    ).encode()
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    before_us = _cpu_us(echo)
    transport, _ = await ws_connect(
        lambda: _Load(message, done), f"ws://127.0.0.1:{port}/", use_aiofastnet=False, websocket_handshake_timeout=5
    )
    await asyncio.wait_for(done, 30)
    used_us = _cpu_us(echo) - before_us
    transport.disconnect()
    return used_us / MESSAGES


def _cpu_us(process: psutil.Process) -> float:
    """CPU time until now: the scheduler's own count where Linux gives it, else in steps of 10 ms."""
    try:
        return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0]) / 1e3
    except OSError:
        times = process.cpu_times()
        return float(times.user + times.system) * 1e6


async def _echo_until_eof() -> None:
    server = await ws_create_server(lambda _request: _Echo(), "127.0.0.1", 0, use_aiofastnet=False)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(_echo_until_eof())
