"""The simulated Telnyx by itself: what it signs, which commands it takes, what it makes of those it does not."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import uvloop

from bench.sim.telnyx import Call, Exchange
from bench.sim.telnyx_rest import Refusal
from tests.support.http_peer import Answer, HttpPeer, http_peer

STREAM = {
    "stream_url": "wss://voice.example.com/media/telnyx/x",
    "stream_bidirectional_mode": "rtp",
    "stream_codec": "PCMU",
    "command_id": "1",
}
# SubjectPublicKeyInfo of an Ed25519 key, RFC 8410, up to the key's own 32 bytes.
SPKI = bytes.fromhex("302a300506032b6570032100")


def exchange_of(**options: Any) -> Exchange:
    return Exchange(public_url="https://voice.example.com", local_url="", **options)


def with_peer(exchange: Exchange, kind: str, *answers: Answer) -> HttpPeer:
    """Tell a server that answers so of one event."""

    async def main() -> HttpPeer:
        async with http_peer(*answers) as peer, exchange:
            exchange.local_url = peer.url
            exchange.tell(Call("v3:a", "+15552000007", "+15550100"), kind, direction="incoming")
            assert await exchange.wait_delivered(10)
            return peer

    return uvloop.run(main())


def test_events_are_signed_as_openssl_has_it(tmp_path: Path) -> None:
    exchange = exchange_of()
    (one,) = with_peer(exchange, "call.initiated").seen
    assert (one.target, one.headers["host"]) == ("/telnyx/events", "voice.example.com")
    key, signature, message = (tmp_path / name for name in ("key", "signature", "message"))
    key.write_bytes(SPKI + base64.b64decode(exchange.server_env["TELNYX_PUBLIC_KEY"]))
    signature.write_bytes(base64.b64decode(one.headers["telnyx-signature-ed25519"]))
    message.write_bytes(f"{one.headers['telnyx-timestamp']}|{one.body}".encode())
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", key, "-rawin"]
    done = subprocess.run(
        [*command, "-in", message, "-sigfile", signature], capture_output=True, text=True, timeout=20, check=False
    )
    assert "Verified Successfully" in done.stdout, done.stderr
    event = json.loads(one.body)
    assert event["data"]["event_type"] == "call.initiated"
    assert event["data"]["payload"]["call_control_id"] == "v3:a"


def test_events_come_twice_and_again_until_they_are_answered() -> None:
    twice = with_peer(exchange_of(doubled=("call.answered",)), "call.answered").seen
    assert len(twice) == 2 and twice[0].body == twice[1].body
    again = [json.loads(one.body) for one in with_peer(exchange_of(), "call.answered", Answer(503), Answer(500)).seen]
    assert [one["meta"]["attempt"] for one in again] == [1, 2, 3]
    assert len({one["data"]["id"] for one in again}) == 1
    lost = exchange_of()
    assert len(with_peer(lost, "call.hangup", *[Answer(500)] * 3).seen) == 3
    assert lost.callbacks_failed == 1


@pytest.mark.parametrize(
    ("is_answered", "action", "asked", "fault"),
    [
        (False, "answer", STREAM, ""),
        (True, "answer", STREAM, "the call is answered"),
        (False, "answer", STREAM | {"custom_parameters": "[]"}, "unknown fields ['custom_parameters']"),
        (False, "answer", STREAM | {"stream_url": "ws://voice.example.com"}, "stream_url"),
        (False, "answer", STREAM | {"stream_bidirectional_mode": "mp3"}, "only rtp"),
        (False, "answer", {"stream_url": STREAM["stream_url"]}, "only rtp"),
        (False, "answer", STREAM | {"stream_codec": "pcmu"}, "codec"),
        (True, "streaming_start", STREAM | {"custom_parameters": "[]"}, ""),
        (False, "streaming_start", STREAM, "the call is not answered"),
        (False, "reject", {"cause": "USER_BUSY"}, ""),
        (False, "reject", {"cause": "busy"}, "cause"),
        (True, "reject", {"cause": "USER_BUSY"}, "the call is answered"),
        (False, "hangup", {}, ""),
        (True, "hangup", {"command_id": "x"}, ""),
        (True, "dance", {}, "unknown action"),
    ],
)
def test_commands_are_checked(is_answered: bool, action: str, asked: dict[str, str], fault: str) -> None:
    async def main() -> None:
        exchange = exchange_of()
        call = Call("v3:a", "+15552000007", "+15550100", status="ringing", answered_ns=int(is_answered))
        exchange.calls[call.sid] = call
        if not fault:
            exchange.command(call.sid, action, asked)
            assert [one.action for one in call.taken] == [action]
            return
        with pytest.raises(Refusal) as refused:
            exchange.command(call.sid, action, asked)
        assert refused.value.status == 422 and fault in str(refused.value)
        assert call.taken == [] and len(exchange.debugger) == 1

    asyncio.run(main())


def test_the_api_as_a_client_sees_it() -> None:
    async def main() -> None:
        async with exchange_of() as exchange, httpx.AsyncClient(trust_env=False) as http:
            call = Call("v3:a/b", "+15552000007", "+15550100", status="ringing")
            exchange.calls[call.sid] = call
            base = f"{exchange.rest_url}/v2/calls"
            path = f"{base}/{quote(call.sid, safe='')}/actions"
            key = {"authorization": f"Bearer {exchange.api_key}"}

            async def post(url: str, body: dict[str, str], headers: dict[str, str] = key) -> tuple[int, Any]:
                answer = await http.post(url, json=body, headers=headers)
                found = answer.json()
                return answer.status_code, found["errors"][0]["code"] if "errors" in found else found

            done = (200, {"data": {"result": "ok"}})
            assert await post(f"{path}/answer", STREAM, {}) == (401, "10009")
            assert await post(f"{base}/v3:a/actions/answer", STREAM) == (404, "10005")
            assert await post(f"{base}/v3%3Anobody/actions/answer", STREAM) == (404, "10005")
            assert await post(f"{path}/answer", STREAM) == done
            # The same command again is dropped without a word; another one is not.
            assert await post(f"{path}/answer", STREAM) == done
            assert (await post(f"{path}/answer", STREAM | {"command_id": "2"}))[0] == 422
            assert len(call.taken) == 1
            call.status = "completed"
            assert await post(f"{path}/hangup", {}) == (422, "90018")

    uvloop.run(main())
