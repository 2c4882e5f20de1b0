"""Telnyx's webhook over a real socket, signed by a key of its own."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from server.carrier.signature import TELNYX_WINDOW_S, TelnyxSignature
from server.edge.telnyx_routes import MAX_EVENT_BYTES, Overloaded, TelnyxEvent, telnyx_routes
from tests.support.http_server import http_server

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC_KEY = base64.b64encode(KEY.public_key().public_bytes_raw()).decode()
NOW_S = 1_793_700_900
CALL = "v3:3m0Fb8"


class Desk:
    """A TelnyxCalls that keeps what it is told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.told: list[TelnyxEvent] = []

    async def on_event(self, event: TelnyxEvent) -> None:
        self.told.append(event)
        if self.error is not None:
            raise self.error


def body_of(kind: str = "call.initiated", **payload: Any) -> bytes:
    event = {
        "record_type": "event",
        "event_type": kind,
        "id": "0ccc7b54-4df3-4bca-a65a-3da1ecc777f0",
        "payload": {"call_control_id": CALL, **payload},
    }
    return json.dumps({"data": event, "meta": {"attempt": 1}}).encode()


async def post(
    client: httpx.AsyncClient, body: bytes, *, key: Ed25519PrivateKey = KEY, at_s: int = NOW_S, **headers: str
) -> httpx.Response:
    signed = base64.b64encode(key.sign(f"{at_s}|".encode() + body)).decode()
    given = {"telnyx-signature-ed25519": signed, "telnyx-timestamp": str(at_s), "content-type": "application/json"}
    return await client.post("/telnyx/events", content=body, headers={**given, **headers})


def with_desk(desk: Desk, main: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async def run() -> None:
        async with http_server(telnyx_routes(desk, TelnyxSignature(PUBLIC_KEY), lambda: NOW_S)) as client:
            await main(client)

    uvloop.run(run())


def test_an_event_is_taken_as_it_was_sent() -> None:
    desk = Desk()

    async def main(client: httpx.AsyncClient) -> None:
        answer = await post(client, body_of(direction="incoming", to="+493012345678", tags=[1], long="x" * 5000))
        assert (answer.status_code, answer.content) == (200, b"")
        assert (await post(client, body_of("streaming_stopped"))).status_code == 200
        assert (await post(client, body_of("call.something.new"))).status_code == 200

    with_desk(desk, main)
    first, second, third = desk.told
    assert (first.kind, first.call_control_id) == ("call.initiated", CALL)
    assert [first.text(name) for name in ("direction", "to", "tags", "long", "none")] == [
        "incoming", "+493012345678", "", "", "",
    ]  # fmt: skip
    assert (second.kind, third.kind) == ("streaming.stopped", "call.something.new")


def test_what_is_not_signed_by_telnyx_is_refused() -> None:
    desk = Desk()
    other = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))

    async def main(client: httpx.AsyncClient) -> None:
        body = body_of()
        refused = [
            await post(client, body, key=other),
            await post(client, body, **{"telnyx-signature-ed25519": "AAAA"}),
            await post(client, body, **{"telnyx-signature-ed25519": ""}),
            await post(client, body, **{"telnyx-timestamp": str(NOW_S + 1)}),
            await post(client, body, **{"telnyx-timestamp": "soon"}),
            await post(client, b"{not JSON", key=other),
            await client.post("/telnyx/events", content=body),
        ]
        assert [one.status_code for one in refused] == [403] * len(refused)
        assert (await client.get("/telnyx/events")).status_code == 405

    with_desk(desk, main)
    assert desk.told == []


@pytest.mark.parametrize(("age_s", "status"), [(0, 200), (300, 200), (-300, 200), (301, 403), (-301, 403)])
def test_an_old_event_is_refused(age_s: int, status: int) -> None:
    assert TELNYX_WINDOW_S == 300
    desk = Desk()

    async def main(client: httpx.AsyncClient) -> None:
        assert (await post(client, body_of(), at_s=NOW_S - age_s)).status_code == status

    with_desk(desk, main)
    assert len(desk.told) == (status == 200)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'{"data":[]}', b'{"data":{"event_type":"call.initiated","id":"x"}}',
        b'{"data":{"event_type":"call.initiated","payload":{}}}', b'{"data":{"event_type":7,"id":"x","payload":{}}}',
        b'{"data":{"event_type":"call.initiated","id":"x","payload":[]}}', b"\xff" * 100, b"[" * 60_000,
    ],
)  # fmt: skip
def test_what_is_no_event_is_refused(body: bytes) -> None:
    desk = Desk()

    async def main(client: httpx.AsyncClient) -> None:
        assert (await post(client, body)).status_code == 400

    with_desk(desk, main)
    assert desk.told == []


def test_the_body_is_bounded() -> None:
    desk = Desk()

    async def main(client: httpx.AsyncClient) -> None:
        room = MAX_EVENT_BYTES - len(body_of(x=""))
        assert (await post(client, body_of(x="x" * room))).status_code == 200
        assert (await post(client, body_of(x="x" * (room + 1)))).status_code == 413

    with_desk(desk, main)
    assert len(desk.told) == 1


def test_what_cannot_be_taken_is_delivered_again() -> None:
    async def busy(client: httpx.AsyncClient) -> None:
        answer = await post(client, body_of())
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")

    async def faulty(client: httpx.AsyncClient) -> None:
        answer = await post(client, body_of())
        assert answer.status_code == 500 and b"secret" not in answer.content

    with_desk(Desk(Overloaded()), busy)
    with_desk(Desk(RuntimeError("secret")), faulty)
