"""The sans-IO head parser: tables, split invariance, and that any bytes give a known answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.edge.request_head import HeadRefused, parse_head, websocket_key
from tests.support.ws_client import upgrade_request

GOOD = b"POST /twilio/voice?x=1 HTTP/1.1\r\nHost: a.example\r\nX-A: 1\r\nx-a:\t2 \r\n\r\nbody"


def refusal(data: bytes, limit_bytes: int = 8_192) -> int:
    with pytest.raises(HeadRefused) as caught:
        parse_head(data, limit_bytes)
    return caught.value.status


def test_reads_line_and_headers() -> None:
    head = parse_head(GOOD, 8_192)
    assert head is not None
    assert (head.method, head.target, head.is_media) == ("POST", "/twilio/voice?x=1", False)
    assert dict(head.headers) == {"host": "a.example", "x-a": "1, 2"}
    assert GOOD[head.size_bytes :] == b"body"


def test_every_prefix_wants_more() -> None:
    end = GOOD.index(b"body")
    assert all(parse_head(GOOD[:n], 8_192) is None for n in range(end))
    assert parse_head(GOOD[:end], 8_192) is not None


@pytest.mark.parametrize(
    ("target", "is_media"),
    [("/media/twilio/x", True), ("/media/", True), ("/media", False), ("/mediax/", False), ("http://a/media/x", False),
     ("/%6dedia/x", False), ("//media/x", False), ("/x/../media/y", False)],
)  # fmt: skip
def test_only_the_plain_path_is_media(target: str, is_media: bool) -> None:
    head = parse_head(f"GET {target} HTTP/1.1\r\n\r\n".encode(), 8_192)
    assert head is not None and head.is_media is is_media


@pytest.mark.parametrize(
    "data",
    [b"GET /\r\n\r\n", b"GET  / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1 \r\n\r\n", b"G@T / HTTP/1.1\r\n\r\n",
     b"GET /\x80 HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nA : b\r\n\r\n", b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
     b"GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n", b"GET / HTTP/1.1\r\nA\r\n\r\n", b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n",
     b"GET / HTTP/1.1\nHost: a\n\nGET /media/echo/1 HTTP/1.1\r\n\r\n", b"\r\n\r\n", b"\x16\x03\x01\x02\x00\r\n\r\n"],
)  # fmt: skip
def test_ambiguous_heads_are_refused(data: bytes) -> None:
    assert refusal(data) == 400


@pytest.mark.parametrize(
    "data", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.2\r\n\r\n", b"GET / HTTP/3.0\r\n\r\n"]
)
def test_other_versions_are_refused(data: bytes) -> None:
    assert refusal(data) == 505


def test_head_has_a_bound() -> None:
    line = b"GET / HTTP/1.1\r\nA: "
    fits = line + b"a" * (8_192 - len(line) - 4) + b"\r\n\r\n"
    assert len(fits) == 8_192 and parse_head(fits, 8_192) is not None
    assert refusal(fits.replace(b"A: ", b"A: a")) == 431
    assert parse_head(b"x" * 8_191, 8_192) is None
    assert refusal(b"x" * 8_192) == 431
    assert refusal(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 101 + b"\r\n") == 431


def test_upgrades() -> None:
    def key_of(request: bytes) -> str:
        head = parse_head(request, 8_192)
        assert head is not None
        return websocket_key(head)

    assert len(key_of(upgrade_request("/media/x"))) == 24
    assert len(key_of(upgrade_request("/media/x", connection="keep-alive, Upgrade"))) == 24
    for request, status in (
        (b"GET /media/x HTTP/1.1\r\n\r\n", 426),
        (upgrade_request("/media/x", version="8"), 426),
        (upgrade_request("/media/x").replace(b"websocket", b"h2c"), 426),
        (upgrade_request("/media/x", "Content-Length: 5"), 400),
        (upgrade_request("/media/x", "Transfer-Encoding: chunked"), 400),
        (upgrade_request("/media/x", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="), 400),
        (upgrade_request("/media/x").replace(b"-Key: ", b"-Key: AAAA"), 400),
        (upgrade_request("/media/x").replace(b"-Key: ", b"-Key: \xe9"), 400),
    ):
        with pytest.raises(HeadRefused) as caught:
            key_of(request)
        assert caught.value.status == status


@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda b: b"GET /media/x HTTP/1.1\r\n" + b + b"\r\n\r\n"))
def test_any_bytes_give_a_known_answer(data: bytes) -> None:
    try:
        head = parse_head(data, 200)
        if head is not None:
            assert head.size_bytes <= 200
            websocket_key(head)
    except HeadRefused as refused:
        assert refused.status in (400, 426, 431, 505)
