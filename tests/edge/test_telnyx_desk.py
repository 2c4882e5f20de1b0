"""What the desk does with events of calls that nobody here knows, over real sockets; whole calls are in tests/e2e."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from server.call.plane import CallPlane
from server.carrier.rest import RestLimits
from server.carrier.telnyx_rest import TelnyxRest
from server.clock import SystemClock
from server.edge import telnyx_desk
from server.edge.telnyx_desk import TelnyxDesk
from server.edge.telnyx_routes import Overloaded, TelnyxEvent
from server.store.answer import SharedAnswers
from tests.support.http_peer import Answer, HttpPeer, http_peer

LIMITS = RestLimits(connect_ms=2000, read_ms=2000, deadline_ms=2000)


def stopped(call: str, stream_id: str, kind: str = "streaming.stopped") -> TelnyxEvent:
    url = f"wss://voice.example.com/media/telnyx/{stream_id}/secret"
    where = {"stream_url": url} if kind == "streaming.stopped" else {"stream_params": {"stream_url": url}}
    return TelnyxEvent("0ccc7b54", kind, call, where)


def with_desk(main: Callable[[TelnyxDesk, HttpPeer], Awaitable[None]], otherwise: Answer | None = None) -> HttpPeer:
    async def run() -> HttpPeer:
        nothing: Any = None
        async with http_peer(otherwise=otherwise) as peer, httpx.AsyncClient(trust_env=False) as http:
            # A plane that has had no call asks none of its services.
            plane = CallPlane(services=nothing, providers_for=nothing, tokens=nothing, versions=nothing, max_calls=1)
            answers = SharedAnswers(None, b"k" * 32, SystemClock())
            rest = TelnyxRest("KEY", peer.url, http, limits=LIMITS)
            desk = TelnyxDesk(plane, nothing, rest, answers, "https://voice.example.com")
            await main(desk, peer)
            await desk.close()
            return peer

    return asyncio.run(run(), debug=True)


def test_a_call_without_its_stream_is_ended_once() -> None:
    async def main(desk: TelnyxDesk, peer: HttpPeer) -> None:
        for _ in range(3):
            await desk.on_event(stopped("v3:a", "A" * 22))
        await desk.on_event(stopped("v3:b", "B" * 22, "streaming.failed"))
        # Streams of somebody else, calls without a name, kinds that mean nothing for us.
        await desk.on_event(TelnyxEvent("1", "streaming.stopped", "v3:c", {"stream_url": "wss://elsewhere/x"}))
        await desk.on_event(TelnyxEvent("2", "streaming.failed", "v3:c", {"stream_params": ["x"]}))
        await desk.on_event(stopped("", "C" * 22))
        await desk.on_event(TelnyxEvent("3", "call.initiated", "v3:c", {"direction": "outgoing"}))
        await desk.on_event(TelnyxEvent("4", "call.cost", "v3:c", {}))

    peer = with_desk(main)
    assert sorted(one.target for one in peer.seen) == [f"/v2/calls/v3%3A{one}/actions/hangup" for one in "ab"]


def test_commands_on_their_way_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telnyx_desk, "MAX_COMMANDS", 2)
    monkeypatch.setattr(telnyx_desk, "CLOSE_S", 0.05)

    async def main(desk: TelnyxDesk, peer: HttpPeer) -> None:
        await desk.on_event(stopped("v3:a", "A" * 22))
        await desk.on_event(stopped("v3:b", "B" * 22))
        for event in (
            stopped("v3:c", "C" * 22),
            TelnyxEvent("1", "call.initiated", "v3:c", {"direction": "incoming", "to": "+493012345678"}),
        ):
            with pytest.raises(Overloaded):
                await desk.on_event(event)
        began_s = asyncio.get_running_loop().time()
        await desk.close()
        assert asyncio.get_running_loop().time() - began_s < 1

    with_desk(main, Answer(hold=True))
