"""Commands over real sockets to a server that fails as told."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import Awaitable, Callable

import httpx
import orjson
import pytest

from server.carrier import twiml
from server.carrier.errors import CarrierError, CarrierRejected, CarrierUnavailable
from server.carrier.rest import RestLimits
from server.carrier.twilio_rest import TwilioRest
from tests.support.http_peer import Answer, HttpPeer, http_peer

ACCOUNT, TOKEN = "AC" + "b" * 32, "secret-token"
CALL = "CA" + "a" * 32
QUICK = RestLimits(connect_ms=500, read_ms=500, deadline_ms=5000, backoff_ms=1, max_pause_ms=2)


def error(status: int, code: int, **headers: str) -> Answer:
    body = {"code": code, "message": "m", "more_info": "u", "status": status}
    return Answer(status, orjson.dumps(body), tuple((name.replace("_", "-"), value) for name, value in headers.items()))


def talk(
    main: Callable[[TwilioRest, HttpPeer], Awaitable[None]],
    *answers: Answer,
    otherwise: Answer | None = None,
    limits: RestLimits = QUICK,
) -> HttpPeer:
    async def run() -> HttpPeer:
        async with http_peer(*answers, otherwise=otherwise) as peer, httpx.AsyncClient(trust_env=False) as http:
            await main(TwilioRest(ACCOUNT, TOKEN, peer.url, http, limits=limits, jitter=random.Random(1)), peer)
            return peer

    return asyncio.run(run(), debug=True)


async def hang_up(rest: TwilioRest, peer: HttpPeer) -> None:
    await rest.hang_up(CALL)


def failing(kind: type[CarrierError], caught: list[CarrierError]) -> Callable[[TwilioRest, HttpPeer], Awaitable[None]]:
    async def main(rest: TwilioRest, peer: HttpPeer) -> None:
        with pytest.raises(kind) as raised:
            await rest.hang_up(CALL)
        caught.append(raised.value)

    return main


def test_hang_up_as_documented() -> None:
    peer = talk(hang_up)
    (one,) = peer.seen
    assert (one.method, one.target) == ("POST", f"/2010-04-01/Accounts/{ACCOUNT}/Calls/{CALL}.json")
    assert one.form == {"Status": ["completed"]}
    assert one.headers["authorization"] == "Basic " + base64.b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()
    assert one.headers["content-type"] == "application/x-www-form-urlencoded"


def test_redirect_sends_twiml() -> None:
    async def main(rest: TwilioRest, peer: HttpPeer) -> None:
        assert await rest.redirect(CALL, twiml.say_and_hang_up("Adiós & <fin>", "es-ES"))

    assert talk(main).seen[0].form == {"Twiml": [twiml.say_and_hang_up("Adiós & <fin>", "es-ES").decode()]}


def test_redirect_bounds() -> None:
    async def main(rest: TwilioRest, peer: HttpPeer) -> None:
        with pytest.raises(ValueError, match="4000"):
            await rest.redirect(CALL, b"x" * 4001)
        assert await rest.redirect(CALL, b"x" * 4000)

    assert len(talk(main).seen) == 1


def test_call_id_cannot_leave_its_place() -> None:
    async def main(rest: TwilioRest, peer: HttpPeer) -> None:
        await rest.hang_up("../../x?y#z%")

    assert talk(main).seen[0].target.endswith("/Calls/..%2F..%2Fx%3Fy%23z%25.json")


@pytest.mark.parametrize("answer", [error(404, 20404), error(400, 21220), error(409, 21220)])
def test_already_over_is_a_success(answer: Answer) -> None:
    async def main(rest: TwilioRest, peer: HttpPeer) -> None:
        await rest.hang_up(CALL)
        assert not await rest.redirect(CALL, twiml.hang_up())

    assert len(talk(main, answer, answer).seen) == 2


@pytest.mark.parametrize(
    "answers",
    [
        (error(429, 20429),),
        (error(500, 20500), error(503, 20503), error(502, 0)),
        (Answer(cut="before"),),
        (Answer(cut="within", body=b"x" * 100), Answer(cut="before")),
        (Answer(503, b"<html>not JSON</html>"),),
        (Answer(500, headers=(("content-encoding", "gzip"),), body=b"not gzip"),),
        (error(429, 20429, retry_after="99999"),),
        (error(429, 20429, retry_after="Wed, 21 Oct 2026 07:28:00 GMT"),),
    ],
)
def test_passing_faults_are_retried(answers: tuple[Answer, ...]) -> None:
    assert len(talk(hang_up, *answers).seen) == len(answers) + 1


def test_lost_answer_then_already_over() -> None:
    """The command was carried out, its answer was lost: asking again finds the call over, which is a success."""
    assert len(talk(hang_up, Answer(cut="before"), error(404, 20404)).seen) == 2


def test_retries_are_bounded() -> None:
    caught: list[CarrierError] = []
    peer = talk(failing(CarrierUnavailable, caught), otherwise=error(503, 20503))
    assert len(peer.seen) == 4
    assert "503/20503" in str(caught[0])


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (error(401, 20003), 20003),
        (error(400, 21218), 21218),
        (error(404, 0), 0),
        (Answer(403, b"[1]"), 0),
        (Answer(302, b"", (("location", "/elsewhere"),)), 0),
        (Answer(400, b'{"code":"20404","message":7}'), 0),
        (Answer(400, b"x" * 200_000), 0),
    ],
)
def test_refusals_are_not_retried(answer: Answer, code: int) -> None:
    caught: list[CarrierError] = []
    peer = talk(failing(CarrierRejected, caught), answer)
    assert len(peer.seen) == 1
    assert (caught[0].status, caught[0].code) == (answer.status, code)
    assert TOKEN not in str(caught[0])


def test_silence_ends_at_the_deadline() -> None:
    async def main(rest: TwilioRest, peer: HttpPeer) -> None:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        with pytest.raises(CarrierUnavailable, match="300 ms"):
            await rest.hang_up(CALL)
        assert 0.29 <= loop.time() - started_s < 2

    limits = RestLimits(connect_ms=5000, read_ms=5000, deadline_ms=300)
    assert len(talk(main, otherwise=Answer(hold=True), limits=limits).seen) == 1


def test_pauses_do_not_outlive_the_deadline() -> None:
    async def main(rest: TwilioRest, peer: HttpPeer) -> None:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        with pytest.raises(CarrierUnavailable, match="503"):
            await rest.hang_up(CALL)
        assert loop.time() - started_s < 2

    limits = RestLimits(deadline_ms=300, backoff_ms=4000)
    assert len(talk(main, otherwise=error(503, 20503, retry_after="30"), limits=limits).seen) == 1


def test_nobody_there() -> None:
    async def run() -> None:
        async with http_peer() as peer:
            url = peer.url
        async with httpx.AsyncClient(trust_env=False) as http:
            with pytest.raises(CarrierUnavailable, match="ConnectError"):
                await TwilioRest(ACCOUNT, TOKEN, url, http, limits=QUICK).hang_up(CALL)

    asyncio.run(run())


def test_cancelling_is_not_swallowed() -> None:
    async def main(rest: TwilioRest, peer: HttpPeer) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await rest.hang_up(CALL)

    talk(main, otherwise=Answer(hold=True), limits=RestLimits(deadline_ms=5000))


def test_pauses_grow_to_a_bound_and_differ() -> None:
    async def main(rest: TwilioRest, peer: HttpPeer) -> None:
        limits = RestLimits()
        for attempt in range(6):
            found = [rest._client.backoff_ms(attempt) for _ in range(200)]
            full = min(limits.backoff_ms * 2**attempt, limits.max_pause_ms)
            assert 0 <= min(found) < full / 4
            assert full * 3 / 4 < max(found) <= full

    talk(main, limits=RestLimits())
