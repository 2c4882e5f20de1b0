"""Who is let in and who is kept count of: the plane of calls behind the real front door."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from pathlib import Path

import pytest

from server.agent.settings import AgentSettings
from server.call import plane
from server.call.place import Reserved
from server.clock import SystemClock
from server.errors import ConfigError
from server.store.agents import AgentVersion
from server.store.fact import CallEnded
from server.store.redis import Redis
from tests.support.call_plane import AGENT, VERSION, closed, plane_server, until

TELNYX_START = {
    "event": "start",
    "sequence_number": "1",
    "stream_id": "s1",
    "start": {
        "call_control_id": "one",
        "media_format": {"encoding": "PCMU", "sample_rate": 8000, "channels": 1},
    },
}


def test_a_secret_is_good_for_the_carrier_that_it_was_made_for(tmp_path: Path) -> None:
    async def main() -> None:
        async with plane_server(tmp_path, carriers=("browser", "twilio", "telnyx"), max_calls=4) as server:
            promised = await server.promised("one", "twilio")
            # Telnyx's path takes the secret without a signature.
            assert await server.connected(f"telnyx/{promised.stream_id}/{promised.secret}") == 403
            # Nor is a secret of its own good for somebody else's stream of the same name.
            assert await server.tokens.redeem(f"telnyx/{promised.stream_id}", promised.secret) is None
            own = await server.promised("one", "telnyx")
            socket = await server.connected(f"telnyx/{own.stream_id}/{own.secret}")
            assert not isinstance(socket, int)
            await socket.send(json.dumps({"event": "connected", "version": "1.0.0"}))
            await socket.send(json.dumps(TELNYX_START))
            assert json.loads(await socket.recv())["event"] == "media"
            await socket.close()

    asyncio.run(main())


def test_streams_of_a_carrier_that_is_not_configured_are_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with plane_server(tmp_path, carriers=("browser",)) as server:
            promised = await server.promised("one", "telnyx")
            assert await server.connected(f"telnyx/{promised.stream_id}/{promised.secret}") == 403
            await (await server.talking(await server.promised())).close()

    asyncio.run(main())


def test_a_stream_has_one_socket(tmp_path: Path) -> None:
    """A second one, while the first has said nothing yet, would push the call out of the books."""

    async def main() -> None:
        async with plane_server(tmp_path, max_calls=1) as server:
            reserved = await server.promised()
            path = f"browser/{reserved.stream_id}"
            first = await server.connected(path)
            assert not isinstance(first, int)
            assert await server.connected(path) == 403
            assert await asyncio.gather(*(server.connected(path) for _ in range(8))) == [403] * 8
            await first.send(json.dumps({"event": "start", "secret": reserved.secret, "sampleRate": 16000}))
            assert isinstance(await first.recv(), bytes)
            assert await server.connected(path) == 403
            assert server.plane.active == 1
            # It says nothing for two seconds: the watch still sees it.
            await asyncio.wait_for(closed(first), 6)
            await until(lambda: server.plane.active == 0)
            assert server.counted("browser", "media_lost") == 1

    asyncio.run(main())


def test_of_sockets_that_race_for_a_stream_one_is_let_in(tmp_path: Path) -> None:
    async def main() -> None:
        async with plane_server(tmp_path) as server:
            path = f"browser/{(await server.promised()).stream_id}"
            found = await asyncio.gather(*(server.connected(path) for _ in range(16)))
            assert [one for one in found if isinstance(one, int)] == [403] * 15
            assert server.plane.active == 1

    asyncio.run(main())


def test_calls_that_come_together_get_no_more_places_than_there_are(tmp_path: Path) -> None:
    async def main() -> None:
        async with plane_server(tmp_path, max_calls=2) as server:
            reserve = server.plane.reserve
            found = await asyncio.gather(*(reserve("browser", f"b{n}", "", "", VERSION) for n in range(40)))
            kept = [one for one in found if one is not None]
            assert (len(kept), server.plane.taken) == (2, 2)
            for one in kept:
                await server.talking(one)
            assert (server.plane.active, server.plane.taken) == (2, 2)

    asyncio.run(main())


def test_a_place_comes_back_when_no_stream_was_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk_works = threading.Event()

    def slow_sync(fd: int) -> None:
        disk_works.wait(10)

    async def main() -> None:
        async with plane_server(tmp_path, max_calls=1) as server:
            reserve = server.plane.reserve
            with monkeypatch.context() as patch:
                patch.setattr(os, "fdatasync", slow_sync)
                waiting = asyncio.create_task(reserve("browser", "b1", "", "", VERSION))
                await until(lambda: server.plane.taken == 1)
                assert await reserve("browser", "b2", "", "", VERSION) is None
                # The disk is too late for the first; the next gives up by itself.
                assert await waiting is None and server.plane.taken == 0
                assert server.counted("browser", "busy") == 1
                cancelled = asyncio.create_task(reserve("browser", "b3", "", "", VERSION))
                await until(lambda: server.plane.taken == 1)
                cancelled.cancel()
                await asyncio.wait([cancelled])
                assert server.plane.taken == 0
                disk_works.set()
            nowhere = AgentVersion("v2", "a1", "test", 2, AgentSettings.parse({**AGENT, "llm": {"provider": "groq"}}))
            with pytest.raises(ConfigError):
                await reserve("browser", "b4", "", "", nowhere)
            assert server.plane.taken == 0
            assert [reason for _, reason in await server.ends()] == ["busy", "error", "error"]
            await server.talking(await server.promised("b5"))

    asyncio.run(main())


def test_a_stream_without_a_place_is_let_in_while_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plane, "RESERVATION_S", 0.1)

    async def main() -> None:
        async with plane_server(tmp_path, max_calls=1) as server:
            late = await server.promised("late")
            await until(lambda: server.plane.taken == 0)
            first = await server.talking(await server.promised("first"))
            assert await server.connected(f"browser/{late.stream_id}") == 403
            assert server.plane.active == 1
            await first.close()
            await until(lambda: server.plane.taken == 0)
            await server.talking(late)
            assert server.plane.active == 1

    asyncio.run(main())


def test_a_call_whose_stream_never_came_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plane, "RESERVATION_S", 0.1)

    async def main() -> None:
        async with plane_server(tmp_path) as server:
            reserved = await server.promised("b1")
            await until(lambda: server.plane.taken == 0)
            assert await server.ends() == [(reserved.call_id, "no_media")]
            assert server.counted("browser", "no_media") == 1
            assert server.plane.is_unfinished("b1")
            # It comes after all, and has the end that it comes to.
            page = await server.talking(reserved)
            await page.send('{"event":"stop"}')
            await until(lambda: server.plane.active == 0)
            assert (await server.ends())[1:] == [(reserved.call_id, "caller_hung_up")]
            assert not server.plane.is_unfinished("b1")

    asyncio.run(main())


def test_a_stream_that_another_process_let_in_has_no_end_here(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plane, "RESERVATION_S", 0.1)

    async def main() -> None:
        redis = Redis.open(redis_url, SystemClock(), command_s=2.0)
        async with plane_server(tmp_path / "a", redis=redis) as a, plane_server(tmp_path / "b", redis=redis) as b:
            reserved = await a.promised()
            page = await b.talking(reserved)
            await until(lambda: a.plane.taken == 0)
            assert await a.ends() == [] and a.counted("browser", "no_media") == 0
            await page.send('{"event":"stop"}')
            await until(lambda: b.plane.active == 0)
            assert await b.ends() == [(reserved.call_id, "caller_hung_up")]
        await redis.close()

    asyncio.run(main())


@pytest.mark.parametrize("ttl_s", [5, 60])
def test_a_place_is_given_up_before_its_token_expires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ttl_s: int
) -> None:
    """Afterwards nobody could say whether another process had let the stream in."""
    monkeypatch.setattr(plane, "TOKEN_MARGIN_S", 4.8)

    async def main() -> None:
        async with plane_server(tmp_path) as server:
            server.tokens.ttl_s = ttl_s
            reserved = await server.promised()
            if ttl_s == 5:
                await until(lambda: server.plane.taken == 0, 2)
                assert await server.ends() == [(reserved.call_id, "no_media")]
            else:
                (place,) = server.plane._reserved.values()
                assert place.until_s - asyncio.get_running_loop().time() == pytest.approx(15, abs=1)

    asyncio.run(main())


def test_a_stream_that_is_refused_ends_its_call(tmp_path: Path) -> None:
    async def main() -> None:
        async with plane_server(tmp_path, max_calls=4, carriers=("browser", "telnyx")) as server:
            ends = []

            async def refused(reserved: Reserved, path: str, *messages: str | bytes, outcome: str = "refused") -> None:
                socket = await server.connected(path)
                assert not isinstance(socket, int)
                for message in messages:
                    await socket.send(message)
                await (closed(socket) if messages else socket.close())
                await until(lambda: server.plane.taken == 0)
                ends.append((reserved.call_id, outcome))
                assert await server.ends() == ends

            for messages in (
                [json.dumps({"event": "start", "secret": "x", "sampleRate": 16000})],
                ["what?"],
                [bytes(640)],
            ):
                one = await server.promised(f"b{len(ends)}")
                await refused(one, f"browser/{one.stream_id}", *messages)
            one = await server.promised("b9")
            await refused(one, f"browser/{one.stream_id}", outcome="no_media")
            one = await server.promised("another", "telnyx")
            connected = json.dumps({"event": "connected", "version": "1.0.0"})
            await refused(one, f"telnyx/{one.stream_id}/{one.secret}", connected, json.dumps(TELNYX_START))
            assert (server.counted("browser", "refused"), server.counted("browser", "no_media")) == (3, 1)
            assert server.counted("telnyx", "refused") == 1

    asyncio.run(main())


def test_what_is_promised_when_the_process_stops_has_an_end(tmp_path: Path) -> None:
    async def main() -> None:
        stop = asyncio.Event()
        async with plane_server(tmp_path, stop=stop) as server:
            reserved = await server.promised()
            stop.set()
            await until(lambda: server.plane.taken == 0)
            assert await server.ends() == [(reserved.call_id, "drained")]

    asyncio.run(main())


def test_nobody_waits_for_a_stream_that_never_opened(tmp_path: Path) -> None:
    """Telnyx says that a stream failed: its caller hears nothing until the call is hung up."""

    async def main() -> None:
        async with plane_server(tmp_path, carriers=("telnyx",)) as server:
            reserved = await server.promised("one", "telnyx")
            async with asyncio.timeout(1):
                assert await server.plane.resume("one") is None
            assert server.plane.taken == 0
            assert await server.ends() == [(reserved.call_id, "no_media")]

    asyncio.run(main())


def test_audio_that_was_lost_here_is_counted(tmp_path: Path) -> None:
    settings = AgentSettings.parse({**AGENT, "turn": {"vad": "silero"}})

    async def main() -> None:
        async with plane_server(tmp_path) as server:
            version = AgentVersion("v3", "a1", "test", 3, settings)
            reserved = await server.plane.reserve("browser", "b1", "", "", version)
            assert reserved is not None
            page = await server.talking(reserved)
            (entry,) = server.plane._entries.values()
            assert entry.session is not None
            native = entry.session.uplink.native
            # Ten seconds at once: more than Silero keeps, and than the ring does.
            for _ in range(10):
                await page.send(bytes(32_000))
            await until(lambda: native.position_samples == 160_000)
            native.take()
            with pytest.raises(BufferError):
                native.ring.view(0, 4)
            await page.send('{"event":"stop"}')
            await until(lambda: server.plane.active == 0)
            sample = server.metrics.registry.get_sample_value
            assert sample("media_overruns_total", {"part": "reader"}) == 160_000 - 8 * 16_000
            assert sample("media_overruns_total", {"part": "ring"}) == 2 * (160_000 - 8 * 16_000)
            assert sample("media_overruns_total", {"part": "silero"}) >= 10 * (16_000 - 1_024)
            (ended,) = await server.facts(CallEnded)
            assert ended.counters["overruns_reader_samples"] == 160_000 - 8 * 16_000
            assert ended.counters["overruns_ring_bytes"] == 2 * (160_000 - 8 * 16_000)
            assert ended.counters["overruns_silero_samples"] >= 10 * (16_000 - 1_024)

    asyncio.run(main())
