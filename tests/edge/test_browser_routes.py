"""A page asks for a call: over a real socket, from its own origin, a listed one and foreign ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
import uvloop

from server.edge.browser_routes import (
    MAX_AGENT_CHARS,
    MAX_BODY_BYTES,
    PATH,
    BrowserRouteSettings,
    browser_routes,
    own_origins,
)
from server.edge.twilio_routes import Accepted, Refused
from tests.support.http_server import http_server

PUBLIC_URL = "https://voice.example.com"
KEY = "k3y-0123456789abcdef"
OWN = {"origin": PUBLIC_URL}
LISTED = "https://app.example.org"


class Desk:
    """A BrowserCalls that keeps what it is asked and answers what it was given."""

    def __init__(self, answer: Accepted | Refused) -> None:
        self.answer = answer
        self.asked: list[str] = []

    async def open(self, agent: str) -> Accepted | Refused:
        self.asked.append(agent)
        return self.answer


def with_desk(desk: Desk, main: Callable[[httpx.AsyncClient], Awaitable[None]], **settings: Any) -> None:
    async def run() -> None:
        routes = browser_routes(desk, BrowserRouteSettings(**{"public_url": PUBLIC_URL, **settings}))
        async with http_server(routes) as client:
            await main(client)

    uvloop.run(run())


async def ask(client: httpx.AsyncClient, headers: dict[str, str], agent: object = "anna") -> httpx.Response:
    return await client.post(PATH, json={"agent": agent}, headers=headers)


def test_a_page_of_ours_gets_a_stream() -> None:
    desk = Desk(Accepted("stream-1", "s3cret"))

    async def main(client: httpx.AsyncClient) -> None:
        answer = await ask(client, OWN)
        assert answer.status_code == 201
        assert answer.json() == {
            "stream_id": "stream-1",
            "secret": "s3cret",
            "url": "wss://voice.example.com/media/browser/stream-1",
        }
        assert answer.headers["cache-control"] == "no-store"

    with_desk(desk, main)
    assert desk.asked == ["anna"]


def test_a_local_page_gets_a_socket_without_tls() -> None:
    async def main(client: httpx.AsyncClient) -> None:
        for origin in ("http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080"):
            answer = await ask(client, {"origin": origin})
            assert answer.json()["url"] == "ws://127.0.0.1:8080/media/browser/s"
        assert (await ask(client, {"origin": "http://localhost:8081"})).status_code == 403

    with_desk(Desk(Accepted("s", "x")), main, public_url="http://127.0.0.1:8080")


def test_refusals() -> None:
    desk = Desk(Refused("unknown_number"))

    async def main(client: httpx.AsyncClient) -> None:
        answer = await ask(client, OWN, "nobody")
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
        for reason in ("busy", "failed"):
            desk.answer = Refused(reason)
            answer = await ask(client, OWN)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert answer.headers["content-type"] == "application/problem+json"

    with_desk(desk, main)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://voice.example.com"},
        {"origin": "https://voice.example.com:8443"},
        {"origin": "https://voice.example.com.evil.example"},
        {"origin": ""},
        # Hides its origin, but says that it is not of the same one.
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        # A rebound name: Host and Origin agree with each other, and are not ours.
        {"origin": "http://evil.example", "host": "evil.example"},
    ],
    ids=str,
)
@pytest.mark.parametrize("api_key", ["", KEY], ids=["open", "key"])
def test_a_foreign_page_gets_nothing(headers: dict[str, str], api_key: str) -> None:
    desk = Desk(Accepted("s", "x"))

    async def main(client: httpx.AsyncClient) -> None:
        answer = await ask(client, {**headers, "authorization": f"Bearer {KEY}"})
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
        assert (await client.options(PATH, headers=headers)).status_code == 403

    with_desk(desk, main, api_key=api_key)
    assert desk.asked == []


def test_a_listed_page_may_ask_and_read_the_answer() -> None:
    async def main(client: httpx.AsyncClient) -> None:
        headers = {"origin": LISTED, "access-control-request-method": "POST"}
        preflight = await client.options(PATH, headers=headers)
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-methods"] == "POST"
        assert "content-type" in preflight.headers["access-control-allow-headers"]
        answer = await ask(client, {"origin": LISTED})
        assert answer.status_code == 201
        for one in (preflight, answer):
            assert one.headers["access-control-allow-origin"] == LISTED
            assert one.headers["vary"] == "origin"
            assert "access-control-allow-credentials" not in one.headers
        assert (await ask(client, OWN)).headers["access-control-allow-origin"] == PUBLIC_URL

    with_desk(Desk(Accepted("s", "x")), main, allowed_origins=(LISTED,))


def test_with_a_key_nobody_without_it() -> None:
    desk = Desk(Accepted("s", "x"))

    async def main(client: httpx.AsyncClient) -> None:
        for given in ("", "Bearer", f"Bearer {KEY[:-1]}", f"Bearer {KEY}x", f"Basic {KEY}", KEY):
            answer = await ask(client, {**OWN, "authorization": given} if given else OWN)
            assert answer.status_code == 401, given
            assert answer.headers["www-authenticate"] == "Bearer"
            # The page must be able to read that its key is wrong.
            assert answer.headers["access-control-allow-origin"] == PUBLIC_URL
        assert desk.asked == []
        assert (await ask(client, {**OWN, "authorization": f"Bearer {KEY}"})).status_code == 201
        # A program sends no Origin; the key lets it in.
        assert (await ask(client, {"authorization": f"bearer {KEY}"})).status_code == 201

    with_desk(desk, main, api_key=KEY)
    assert desk.asked == ["anna", "anna"]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b'{"agent":"anna"}', "text/plain", 415),
        (b"agent=anna", "application/x-www-form-urlencoded", 415),
        (b'{"agent":"anna"}', "", 415),
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"{}", "application/json", 400),
        (b'{"agent":1}', "application/json", 400),
        (b'{"agent":""}', "application/json", 400),
        (b'{"agent":"anna","admin":true}', "application/json", 400),
        (b'{"agent":"' + b"a" * (MAX_AGENT_CHARS + 1) + b'"}', "application/json", 400),
        (b'{"agent":"' + b"a" * MAX_AGENT_CHARS + b'"}', "application/json; charset=utf-8", 201),
        (b'{"agent":"anna"}' + b" " * (MAX_BODY_BYTES - 16), "application/json", 201),
        (b'{"agent":"anna"}' + b" " * (MAX_BODY_BYTES - 15), "application/json", 413),
        (b"[" * 4000, "application/json", 400),
    ],
    ids=range(16),
)
def test_bodies(body: bytes, kind: str, status: int) -> None:
    desk = Desk(Accepted("s", "x"))

    async def main(client: httpx.AsyncClient) -> None:
        answer = await client.post(PATH, content=body, headers={**OWN, **({"content-type": kind} if kind else {})})
        assert answer.status_code == status

    with_desk(desk, main)
    assert len(desk.asked) == (status == 201)


@pytest.mark.parametrize(
    ("public_url", "origins"),
    [
        ("https://voice.example.com", ("https://voice.example.com",)),
        ("https://voice.example.com:443/base", ("https://voice.example.com",)),
        ("https://voice.example.com:8443", ("https://voice.example.com:8443",)),
        ("https://VOICE.example.com", ("https://voice.example.com",)),
        ("http://localhost", ("http://localhost", "http://127.0.0.1", "http://[::1]")),
        ("http://[2001:db8::1]:8080", ("http://[2001:db8::1]:8080",)),
    ],
)
def test_own_origins(public_url: str, origins: tuple[str, ...]) -> None:
    assert own_origins(public_url) == origins


def test_the_key_is_not_shown() -> None:
    assert KEY not in repr(BrowserRouteSettings(public_url=PUBLIC_URL, api_key=KEY))
