"""Commands of Call Control over real sockets to a server that fails as told; what the two carriers share is tested
with Twilio's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import orjson
import pytest

from server.carrier.errors import CarrierRejected, CarrierUnavailable
from server.carrier.rest import RestLimits
from server.carrier.telnyx_rest import TelnyxRest
from tests.support.http_peer import Answer, HttpPeer, http_peer

KEY = "KEY0123456789"
CALL = "v3:a/b?c#d%e f"
IN_PATH = "v3%3Aa%2Fb%3Fc%23d%25e%20f"
STREAM = "wss://voice.example.com/media/telnyx/stream-0123456789abcdef/secret"
QUICK = RestLimits(connect_ms=500, read_ms=500, deadline_ms=5000, backoff_ms=1, max_pause_ms=2)


def error(status: int, code: str) -> Answer:
    return Answer(status, orjson.dumps({"errors": [{"code": code, "title": "t", "detail": "d"}]}))


def talk(main: Callable[[TelnyxRest], Awaitable[None]], *answers: Answer, otherwise: Answer | None = None) -> HttpPeer:
    async def run() -> HttpPeer:
        async with http_peer(*answers, otherwise=otherwise) as peer, httpx.AsyncClient(trust_env=False) as http:
            await main(TelnyxRest(KEY, peer.url, http, limits=QUICK))
            return peer

    return asyncio.run(run(), debug=True)


def bodies(peer: HttpPeer) -> list[dict[str, Any]]:
    return [json.loads(one.body) for one in peer.seen]


async def every_command(rest: TelnyxRest) -> None:
    assert await rest.answer(CALL, STREAM)
    assert await rest.start_stream(CALL, STREAM)
    assert await rest.reject(CALL, "USER_BUSY")
    await rest.hang_up(CALL)


def test_commands_as_documented() -> None:
    peer = talk(every_command)
    paths = [f"/v2/calls/{IN_PATH}/actions/{one}" for one in ("answer", "streaming_start", "reject", "hangup")]
    assert [(one.method, one.target) for one in peer.seen] == [("POST", path) for path in paths]
    for one in peer.seen:
        assert one.headers["authorization"] == f"Bearer {KEY}"
        assert one.headers["content-type"] == "application/json"
    answer, start, reject, hang_up = bodies(peer)
    assert answer.pop("command_id") != start.pop("command_id")
    stream = {
        "stream_url": STREAM,
        "stream_track": "inbound_track",
        "stream_codec": "PCMU",
        "stream_bidirectional_mode": "rtp",
        "stream_bidirectional_codec": "PCMU",
        "stream_bidirectional_target_legs": "self",
    }
    assert answer == start == stream
    assert set(hang_up) == {"command_id"} and (reject["cause"], len(reject)) == ("USER_BUSY", 2)


def test_a_command_keeps_its_id_when_it_is_sent_again() -> None:
    async def main(rest: TelnyxRest) -> None:
        assert await rest.answer(CALL, STREAM)
        assert await rest.answer(CALL, STREAM)
        assert await rest.answer(CALL, STREAM + "2")
        assert await rest.answer("v3:other", STREAM)

    ids = [one["command_id"] for one in bodies(talk(main, error(503, "10016"), Answer(cut="before")))]
    assert len(ids) == 6 and ids[0] == ids[1] == ids[2] == ids[3]
    assert len({ids[0], ids[4], ids[5]}) == 3


def test_already_over() -> None:
    async def main(rest: TelnyxRest) -> None:
        await rest.hang_up(CALL)
        assert not await rest.answer(CALL, STREAM)

    assert len(talk(main, otherwise=error(422, "90018")).seen) == 2


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (error(401, "10009"), 10009),
        (error(422, "90055"), 90055),
        (Answer(404, b"<html>"), 0),
        (Answer(400, b"[1]"), 0),
        (Answer(400, b'{"errors":[]}'), 0),
        (Answer(400, b'{"errors":["90018"]}'), 0),
        (Answer(400, b'{"errors":[{"code":90018,"title":7}]}'), 0),
    ],
)
def test_refusals_are_not_retried(answer: Answer, code: int) -> None:
    async def main(rest: TelnyxRest) -> None:
        with pytest.raises(CarrierRejected) as refused:
            await rest.hang_up(CALL)
        assert (refused.value.status, refused.value.code) == (answer.status, code)
        assert KEY not in str(refused.value)

    assert len(talk(main, answer).seen) == 1


def test_a_refused_answer_does_not_tell_the_secret_of_its_stream() -> None:
    async def main(rest: TelnyxRest) -> None:
        with pytest.raises(CarrierUnavailable) as refused:
            await rest.answer(CALL, STREAM)
        assert "429/10011 t d" in str(refused.value) and "secret" not in str(refused.value)

    assert len(talk(main, otherwise=error(429, "10011")).seen) == 4
