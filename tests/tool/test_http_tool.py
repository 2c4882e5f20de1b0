"""A tool by HTTP: what is sent, what comes back, and every way in which a server can fail, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from server.agent.settings import AgentSettings
from server.agent.tool_settings import ToolSettings
from server.tool.http_tool import MAX_ANSWER_BYTES, Answer, HttpTools, ToolFailed
from tests.support.http_peer import Answer as Reply
from tests.support.http_peer import HttpPeer, http_peer

SECRETS = {"crm": "Bearer crm-secret-123"}


def tool(peer: HttpPeer, path: str = "/price", **settings: Any) -> ToolSettings:
    raw = {"name": "find_price", "url": peer.url + path, **settings}
    [one] = AgentSettings.parse({"tools": [raw]}).tools
    return one


def run(
    body: Callable[[HttpPeer, HttpTools], Awaitable[None]], *answers: Reply, otherwise: Reply | None = None
) -> None:
    async def go() -> None:
        tools = HttpTools(SECRETS, ["127.0.0.1"])
        try:
            async with http_peer(*answers, otherwise=otherwise) as peer:
                await body(peer, tools)
        finally:
            await tools.aclose()

    asyncio.run(go())


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_arguments_are_the_json_body(method: str) -> None:
    async def body(peer: HttpPeer, tools: HttpTools) -> None:
        answer = await tools.call(
            tool(peer, method=method, secret="crm", secret_header="X-Key"), {"item": "señal", "n": 2}, "c-1"
        )
        assert answer == Answer('{"price": 12}', 200, 1)
        [seen] = peer.seen
        assert (seen.method, seen.target) == (method, "/price")
        assert json.loads(seen.body) == {"item": "señal", "n": 2}
        wanted = {"content-type": "application/json", "idempotency-key": "c-1", "x-key": SECRETS["crm"]}
        assert wanted.items() <= seen.headers.items()

    run(body, Reply(body=b'{"price": 12}'))


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_or_the_query(method: str) -> None:
    async def body(peer: HttpPeer, tools: HttpTools) -> None:
        await tools.call(tool(peer, "/p?v=1", method=method), {"q": "a&b=c #", "deep": {"x": [1]}}, "c-1")
        [seen] = peer.seen
        assert seen.method == method
        assert seen.target == "/p?v=1&q=a%26b%3Dc+%23&deep=%7B%22x%22%3A+%5B1%5D%7D"
        assert "authorization" not in seen.headers

    run(body)


@pytest.mark.parametrize(
    "reply, kind, says",
    [
        (Reply(status=404, body=b"no such item"), "rejected", "HTTP 404 no such item"),
        (Reply(status=302, headers=(("location", "http://169.254.169.254/"),)), "rejected", "HTTP 302"),
        (Reply(status=500, body=b"x" * 5000), "failed", "HTTP 500 " + "x" * 300),
        (Reply(status=429), "failed", "HTTP 429"),
        (Reply(cut="before"), "unreachable", "no answer"),
        (Reply(body=b"x" * 4000, cut="within"), "unreachable", "no answer"),
        (Reply(body=b"x" * (MAX_ANSWER_BYTES + 1)), "rejected", "longer than 64 KiB"),
        (
            Reply(body=gzip.compress(b"0" * 9_000_000), headers=(("content-encoding", "gzip"),)),
            "rejected",
            "compressed",
        ),
        (Reply(hold=True), "timeout", "may have been done"),
    ],
)
def test_each_failure_has_its_kind_and_its_words(reply: Reply, kind: str, says: str) -> None:
    async def body(peer: HttpPeer, tools: HttpTools) -> None:
        with pytest.raises(ToolFailed) as failed:
            await tools.call(tool(peer, timeout_ms=400), {}, "c-1")
        assert failed.value.kind == kind and says in str(failed.value)
        assert len(peer.seen) == 1

    run(body, otherwise=reply)


@pytest.mark.parametrize("settings", [{"method": "GET"}, {"method": "PUT"}, {"idempotent": True}])
@pytest.mark.parametrize("reply", [Reply(status=503), Reply(status=429), Reply(cut="before")])
def test_what_may_be_repeated_is_with_the_same_key(settings: dict[str, Any], reply: Reply) -> None:
    async def body(peer: HttpPeer, tools: HttpTools) -> None:
        answer = await tools.call(tool(peer, retries=2, **settings), {}, "c-7")
        assert (answer.text, answer.attempts) == ("{}", 3)
        assert [one.headers["idempotency-key"] for one in peer.seen] == ["c-7"] * 3

    run(body, reply, reply)


def test_no_more_often_than_it_says_and_not_what_was_rejected() -> None:
    async def body(peer: HttpPeer, tools: HttpTools) -> None:
        with pytest.raises(ToolFailed, match="HTTP 503"):
            await tools.call(tool(peer, retries=1, method="GET"), {}, "c-1")
        assert len(peer.seen) == 2
        peer.otherwise = Reply(status=400)
        with pytest.raises(ToolFailed, match="HTTP 400"):
            await tools.call(tool(peer, retries=3, method="GET"), {}, "c-2")
        assert len(peer.seen) == 3

    run(body, otherwise=Reply(status=503))


def test_one_deadline_bounds_all_attempts() -> None:
    async def body(peer: HttpPeer, tools: HttpTools) -> None:
        began_s = time.monotonic()
        with pytest.raises(ToolFailed) as failed:
            await tools.call(tool(peer, retries=3, method="GET", timeout_ms=600), {}, "c-1")
        assert failed.value.kind in ("timeout", "failed")
        assert time.monotonic() - began_s < 3

    run(body, Reply(status=503), Reply(status=503), otherwise=Reply(hold=True))


@pytest.mark.parametrize(
    "url, settings, says",
    [
        ("https://127.0.0.1:1/x", {}, "not public"),
        ("https://[::1]:1/x", {}, "not public"),
        ("https://localhost:1/x", {}, "not public"),
        ("http://tools.example/x", {}, "https only"),
        ("https://user:pw@tools.example/x", {}, "user names"),
        ("https://tools.example/x", {"secret": "other"}, "TOOL_SECRETS has no entry other"),
    ],
)
def test_what_may_not_be_reached_or_known_is_refused_without_a_request(
    url: str, settings: dict[str, Any], says: str
) -> None:
    async def go() -> None:
        tools = HttpTools(SECRETS, ())
        [one] = AgentSettings.parse({"tools": [{"name": "t", "url": url, **settings}]}).tools
        with pytest.raises(ToolFailed, match=says) as failed:
            await tools.call(one, {}, "c-1")
        assert failed.value.kind == "refused"
        await tools.aclose()

    asyncio.run(go())


def test_private_hosts_are_names_in_any_case() -> None:
    tools = HttpTools({}, ["CRM.Internal"])
    assert tools.problem(ToolSettings(name="a", url="http://crm.internal/x")) == ""
    assert tools.problem(ToolSettings(name="a", url="http://Crm.INTERNAL/x")) == ""
    assert "https only" in tools.problem(ToolSettings(name="a", url="http://crm.internal.example/x"))


def test_a_secret_that_the_server_repeats_is_not_told() -> None:
    async def body(peer: HttpPeer, tools: HttpTools) -> None:
        one = tool(peer, secret="crm")
        assert (await tools.call(one, {}, "c-1")).text == "you sent (redacted)"
        with pytest.raises(ToolFailed, match=r"HTTP 403 not \(redacted\)"):
            await tools.call(one, {}, "c-2")

    repeated = SECRETS["crm"].encode()
    run(body, Reply(body=b"you sent " + repeated), Reply(status=403, body=b"not " + repeated))
