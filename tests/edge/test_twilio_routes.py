"""Twilio's webhooks over a real socket, signed by Twilio's own library."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

import httpx
import pytest
import uvloop
from starlette.routing import Route
from twilio.request_validator import RequestValidator

from server.carrier.errors import CarrierUnavailable
from server.carrier.signature import TwilioSignature
from server.edge.twilio_routes import (
    IDEMPOTENCY_HEADER,
    MAX_FORM_BYTES,
    MAX_FORM_FIELDS,
    Accepted,
    Dial,
    HangUp,
    Refused,
    TwilioRouteSettings,
    caller_number,
    media_url,
    twilio_routes,
)
from tests.support.http_server import http_server

PUBLIC_URL = "https://voice.example.com/tenant-7"
TOKEN = "0123456789abcdef0123456789abcdef"
CALL = "CA" + "a" * 32
FORM_TYPE = {"content-type": "application/x-www-form-urlencoded; charset=UTF-8"}
FORM = {
    "CallSid": CALL,
    "AccountSid": "AC" + "b" * 32,
    "From": "+4915112345678",
    "To": "+493012345678",
    "CallStatus": "ringing",
    "ApiVersion": "2010-04-01",
    "Direction": "inbound",
}
Fields = list[tuple[str, str]]


class Desk:
    """A TwilioCalls that keeps what it is told and answers what it was given."""

    def __init__(self, answer: Accepted | Refused | Dial | HangUp | Exception | None = None) -> None:
        self.answer = answer
        self.told: list[tuple[str, dict[str, str]]] = []

    def _answer(self, what: str, form: Mapping[str, str]) -> Any:
        self.told.append((what, dict(form)))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def accept(self, form: Mapping[str, str]) -> Accepted | Refused:
        return self._answer("accept", form)  # type: ignore[no-any-return]

    async def on_status(self, form: Mapping[str, str]) -> None:
        self._answer("status", form)

    async def on_stream_status(self, form: Mapping[str, str]) -> None:
        self._answer("stream-status", form)

    async def after_stream(self, form: Mapping[str, str]) -> Accepted | Dial | HangUp:
        return self._answer("after-stream", form)  # type: ignore[no-any-return]

    async def after_dial(self, form: Mapping[str, str]) -> HangUp:
        return self._answer("after-dial", form)  # type: ignore[no-any-return]


class _Fields(dict[str, list[str]]):
    """The multi-dictionary that Twilio's library asks for."""

    def getall(self, name: str) -> list[str]:
        return self[name]


def signature_of(url: str, fields: Fields) -> str:
    grouped = _Fields()
    for name, value in fields:
        grouped.setdefault(name, []).append(value)
    return str(RequestValidator(TOKEN).compute_signature(url, grouped))


async def post(client: httpx.AsyncClient, target: str, fields: Fields | None = None, **headers: str) -> httpx.Response:
    fields = list(FORM.items()) if fields is None else fields
    signed = {"x-twilio-signature": signature_of(PUBLIC_URL + target, fields)}
    return await client.post(target, content=urlencode(fields), headers={**FORM_TYPE, **signed, **headers})


def routes_of(desk: Desk, **settings: Any) -> list[Route]:
    signature = TwilioSignature(PUBLIC_URL, (TOKEN,))
    return twilio_routes(desk, signature, TwilioRouteSettings(public_url=PUBLIC_URL, **settings))


def with_desk(desk: Desk, main: Callable[[httpx.AsyncClient], Awaitable[None]], **settings: Any) -> None:
    async def run() -> None:
        async with http_server(routes_of(desk, **settings)) as client:
            await main(client)

    uvloop.run(run())


def response_of(answer: httpx.Response) -> ElementTree.Element:
    assert answer.status_code == 200 and answer.headers["content-type"] == "text/xml; charset=utf-8"
    root = ElementTree.fromstring(answer.content)
    assert root.tag == "Response"
    return root


def test_an_accepted_call_gets_its_stream() -> None:
    desk = Desk(Accepted("stream-0123456789abcdef", 'se"cr&t<'))

    async def main(client: httpx.AsyncClient) -> None:
        answers = [await post(client, "/twilio/voice?tenant=acme") for _ in range(2)]
        assert answers[0].content == answers[1].content
        (connect,) = response_of(answers[0])
        assert (connect.tag, connect.attrib) == (
            "Connect",
            {"action": f"{PUBLIC_URL}/twilio/after-stream", "method": "POST"},
        )
        (stream,) = connect
        assert stream.tag == "Stream"
        assert stream.attrib == {
            "url": "wss://voice.example.com/tenant-7/media/twilio/stream-0123456789abcdef",
            "name": "stream-0123456789abcdef",
            "statusCallback": f"{PUBLIC_URL}/twilio/stream-status",
            "statusCallbackMethod": "POST",
        }
        (parameter,) = stream
        assert (parameter.tag, parameter.attrib) == ("Parameter", {"name": "secret", "value": 'se"cr&t<'})

    with_desk(desk, main)
    assert desk.told == [("accept", {**FORM, "tenant": "acme"})] * 2


def test_parameters_are_kept_whatever_they_are() -> None:
    """Unknown, empty, repeated and non-ASCII ones are signed and passed on; of a repeated name the first value."""
    desk = Desk(HangUp())
    fields = [*FORM.items(), ("FromCity", ""), ("Neu", "Grüße 😀 +&="), ("Tag", "b"), ("Tag", "a"), ("Tag", "b")]

    async def main(client: httpx.AsyncClient) -> None:
        answer = await post(client, "/twilio/after-stream", fields, **{IDEMPOTENCY_HEADER: "0d6c2f5e"})
        assert [verb.tag for verb in response_of(answer)] == ["Hangup"]

    with_desk(desk, main)
    expected = {**FORM, "FromCity": "", "Neu": "Grüße 😀 +&=", "Tag": "b", IDEMPOTENCY_HEADER: "0d6c2f5e"}
    assert desk.told == [("after-stream", expected)]


def test_a_get_has_its_parameters_in_the_url() -> None:
    desk = Desk(Refused("busy"))

    async def main(client: httpx.AsyncClient) -> None:
        target = "/twilio/voice?" + urlencode(FORM)
        signed = {"x-twilio-signature": signature_of(PUBLIC_URL + target, [])}
        assert [verb.tag for verb in response_of(await client.get(target, headers=signed))] == ["Reject"]
        other = await client.get(target + "&Digits=1", headers=signed)
        assert other.status_code == 403

    with_desk(desk, main)
    assert desk.told == [("accept", FORM)]


@pytest.mark.parametrize(
    ("refused", "settings", "verb", "attributes"),
    [
        (Refused("busy"), {}, "Reject", {"reason": "busy"}),
        (Refused("unknown_number"), {}, "Reject", {"reason": "rejected"}),
        (Refused("unknown_number"), {"on_unknown_number": "apologise"}, "Say", {"language": "de-DE"}),
        (Refused("failed"), {}, "Say", {"language": "de-DE"}),
        (RuntimeError("password=hunter2"), {}, "Say", {"language": "de-DE"}),
        (CarrierUnavailable("password=hunter2"), {}, "Say", {"language": "de-DE"}),
    ],
    ids=lambda value: getattr(value, "reason", None) or (type(value).__name__ if isinstance(value, Exception) else ""),
)
def test_a_call_that_is_not_taken_hears_why(
    refused: Refused | Exception, settings: dict[str, Any], verb: str, attributes: dict[str, str]
) -> None:
    async def main(client: httpx.AsyncClient) -> None:
        answer = await post(client, "/twilio/voice")
        verbs = list(response_of(answer))
        assert (verbs[0].tag, verbs[0].attrib) == (verb, attributes)
        if verb == "Say":
            assert verbs[0].text == "Bitte später & nochmal"
            assert verbs[1].tag == "Hangup"
        assert b"hunter2" not in answer.content

    with_desk(Desk(refused), main, apology="Bitte später & nochmal", apology_language="de-DE", **settings)


def test_a_desk_that_does_not_answer_is_an_apology() -> None:
    class Slow(Desk):
        async def accept(self, form: Mapping[str, str]) -> Accepted | Refused:
            await asyncio.Event().wait()
            raise AssertionError

    async def main(client: httpx.AsyncClient) -> None:
        assert response_of(await post(client, "/twilio/voice"))[0].tag == "Say"

    with_desk(Slow(), main, answer_ms=20)


def test_after_the_stream_a_second_one() -> None:
    async def main(client: httpx.AsyncClient) -> None:
        (connect,) = response_of(await post(client, "/twilio/after-stream"))
        assert connect[0].attrib["url"].endswith("/media/twilio/second-stream")

    with_desk(Desk(Accepted("second-stream", "s")), main)


def test_a_call_is_put_through_and_what_follows_is_asked() -> None:
    async def main(client: httpx.AsyncClient) -> None:
        (dial,) = response_of(await post(client, "/twilio/after-stream"))
        assert dial.tag == "Dial" and dial.attrib == {
            "answerOnBridge": "true",
            "timeout": "25",
            "action": f"{PUBLIC_URL}/twilio/after-dial",
            "method": "POST",
        }
        assert [(noun.tag, noun.text) for noun in dial] == [("Number", "+15550142")]

    with_desk(Desk(Dial("+15550142")), main)


@pytest.mark.parametrize(
    ("over", "verbs"), [(HangUp(), ["Hangup"]), (HangUp("Bis später & danke", "de-DE"), ["Say", "Hangup"])]
)
@pytest.mark.parametrize("path", ["/twilio/after-stream", "/twilio/after-dial"])
def test_a_call_that_is_over_is_ended_with_or_without_words(path: str, over: HangUp, verbs: list[str]) -> None:
    async def main(client: httpx.AsyncClient) -> None:
        root = response_of(await post(client, path))
        assert [verb.tag for verb in root] == verbs
        if over.text:
            assert (root[0].text, root[0].attrib) == (over.text, {"language": over.language})
        refused = await client.post(path, content=urlencode(FORM), headers=FORM_TYPE)
        assert refused.status_code == 403

    with_desk(Desk(over), main)


def test_progress_is_told_and_answered_with_nothing() -> None:
    desk = Desk()

    async def main(client: httpx.AsyncClient) -> None:
        for path in ("/twilio/status", "/twilio/stream-status"):
            answer = await post(client, path)
            assert (answer.status_code, answer.content) == (204, b"")
        desk.answer = RuntimeError("password=hunter2")
        failed = await post(client, "/twilio/status")
        # Nobody listens to this one: an error status makes Twilio deliver it again.
        assert failed.status_code == 500 and b"hunter2" not in failed.content

    with_desk(desk, main)
    assert [what for what, _ in desk.told] == ["status", "stream-status", "status"]


@pytest.mark.parametrize("path", ["/twilio/voice", "/twilio/after-stream", "/twilio/status", "/twilio/stream-status"])
def test_a_stranger_gets_nothing(path: str, caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(Accepted("stream", "secret"))
    good = signature_of(PUBLIC_URL + path, list(FORM.items()))

    async def main(client: httpx.AsyncClient) -> None:
        body = urlencode(FORM)
        tries = [
            (path, body, {}),
            (path, body, {"x-twilio-signature": ""}),
            (path, body, {"x-twilio-signature": good[:-1]}),
            (path, body, {"x-twilio-signature": "x" * 2000}),
            (path, body.replace("ringing", "completed"), {"x-twilio-signature": good}),
            (path, body + "&Extra=", {"x-twilio-signature": good}),
            (path + "?a=1", body, {"x-twilio-signature": good}),
            # What Host and X-Forwarded-* say must not matter: signed for the stranger's own URL.
            (
                path,
                body,
                {
                    "x-twilio-signature": signature_of(f"https://evil.example{path}", list(FORM.items())),
                    "host": "evil.example",
                    "x-forwarded-host": "evil.example",
                    "x-forwarded-proto": "https",
                },
            ),
            # Nor may a header choose another key or hash.
            (
                path,
                body,
                {"x-twilio-signature": good, "x-twilio-webhooks-signature-settings": "key=k,algorithm=HMAC_SHA256"},
            ),
        ]
        for target, content, headers in tries:
            answer = await client.post(target, content=content, headers={**FORM_TYPE, **headers})
            assert answer.status_code == 403, headers
            assert answer.headers["content-type"] == "application/problem+json"

    with caplog.at_level(logging.WARNING, logger="server.edge.twilio_routes"):
        with_desk(desk, main)
    assert desk.told == []
    assert caplog.records and FORM["From"] not in caplog.text


def test_a_proxy_that_says_another_host_does_not_matter() -> None:
    desk = Desk(HangUp())

    async def main(client: httpx.AsyncClient) -> None:
        answer = await post(client, "/twilio/after-stream", host="10.0.0.7:8080")
        assert answer.status_code == 200

    with_desk(desk, main)
    assert len(desk.told) == 1


def test_bodies_have_bounds() -> None:
    desk = Desk(HangUp())

    async def main(client: httpx.AsyncClient) -> None:
        fits = [("a", "x" * (MAX_FORM_BYTES - 2))]
        assert (await post(client, "/twilio/after-stream", fits)).status_code == 200
        over = await post(client, "/twilio/after-stream", [("a", "x" * (MAX_FORM_BYTES - 1))])
        assert over.status_code == 413

        async def parts() -> Any:
            for _ in range(10):
                yield b"x" * 8192

        chunked = await client.post("/twilio/voice", content=parts(), headers=FORM_TYPE)
        assert chunked.status_code == 413
        many = [("a", str(n)) for n in range(MAX_FORM_FIELDS + 1)]
        assert (await post(client, "/twilio/voice", many)).status_code == 400
        for body in (b"a=%ff", "a=ü".encode(), b"a=\xff"):
            assert (await client.post("/twilio/voice", content=body, headers=FORM_TYPE)).status_code == 400
        for kind in ("application/json", "multipart/form-data; boundary=x", "text/plain"):
            answer = await client.post("/twilio/voice", content=b"{}", headers={"content-type": kind})
            assert answer.status_code == 415
        assert (await client.put("/twilio/voice")).status_code == 405
        assert (await client.get("/twilio/status")).status_code == 405

    with_desk(desk, main)
    assert len(desk.told) == 1


def test_a_body_that_stops_coming_is_no_call() -> None:
    """Answered by the HTTP adapter: an apology here would go to nobody and leave the connection without an answer."""
    desk = Desk(HangUp())

    async def run() -> None:
        async with http_server(routes_of(desk), body_ms=50) as client:
            reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
            head = f"POST /twilio/voice HTTP/1.1\r\nhost: x\r\ncontent-type: {FORM_TYPE['content-type']}\r\n"
            writer.write(f"{head}content-length: 100\r\n\r\nCallSid=".encode())
            async with asyncio.timeout(5):
                answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 408 ")
            writer.close()
            await writer.wait_closed()

    uvloop.run(run())
    assert desk.told == []


@pytest.mark.parametrize(
    ("given", "number"),
    [
        ("+4915112345678", "+4915112345678"),
        (" +4915112345678 ", "+4915112345678"),
        ("client:anna", "client:anna"),
        ("sip:anna@pbx.example", "sip:anna@pbx.example"),
        ("anonymous", ""),
        ("Restricted", ""),
        ("+266696687", ""),
        ("266696687", ""),
        ("", ""),
        ("0", ""),
        ("+0123456789", ""),
        ("<script>", ""),
    ],
)
def test_caller_number(given: str, number: str) -> None:
    assert caller_number(given) == number


def test_media_url() -> None:
    assert media_url("https://voice.example.com/", "twilio", "s1") == "wss://voice.example.com/media/twilio/s1"
    assert media_url("http://127.0.0.1:8080", "browser", "s1") == "ws://127.0.0.1:8080/media/browser/s1"


def test_a_secret_is_not_shown() -> None:
    assert "hunter2" not in repr(Accepted("stream", "hunter2"))
