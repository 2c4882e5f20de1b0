"""Twilio's webhooks: signed forms in, TwiML out; what a call does is decided behind `TwilioCalls`.

    POST, GET /twilio/voice          a call comes in            -> <Connect><Stream>, <Reject> or an apology
    POST, GET /twilio/after-stream   our side closed the stream -> a second stream, <Dial>, or <Hangup>
    POST, GET /twilio/after-dial     the call was put through   -> <Hangup>, after an apology if nobody answered
    POST      /twilio/status         progress of the call       -> 204
    POST      /twilio/stream-status  progress of the stream     -> 204

Guarantees: nothing is decided on a request whose signature is not Twilio's (403), whose body is longer than 64 KiB
(413) or is no form (400, 415). A fault of ours on a route that answers with TwiML is an apology that the caller hears,
with status 200, because an error status would be read to the caller by Twilio or drop the call. Parameters that we do
not know are kept: Twilio adds them without notice. The same `Accepted` gives the same bytes, so a repeated webhook gets
a repeated answer if `TwilioCalls` says the same twice.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.carrier import twiml
from server.carrier.signature import TWILIO_HEADER, TWILIO_SETTINGS_HEADER, Params, TwilioSignature
from server.edge.app import problem
from server.edge.body import read_body

VOICE_PATH = "/twilio/voice"
AFTER_STREAM_PATH = "/twilio/after-stream"
AFTER_DIAL_PATH = "/twilio/after-dial"
STATUS_PATH = "/twilio/status"
STREAM_STATUS_PATH = "/twilio/stream-status"
IDEMPOTENCY_HEADER = "I-Twilio-Idempotency-Token"
"""One value for all retries of one delivery. Not signed: good for dropping repeats, for nothing else."""
MAX_FORM_BYTES = 65536
MAX_FORM_FIELDS = 300
"""Twilio sends about 40; each SIP header is one more."""
DIAL_S = 25
"""So long somebody's phone rings before the caller is told that nobody answers."""
FORM_TYPE = "application/x-www-form-urlencoded"

# What stands in From when the number is withheld: words, and those that spell a word on the keypad
# (ANONYMOUS, RESTRICTED, BLOCKED, UNKNOWN, UNAVAILABLE).
_WITHHELD = frozenset({"anonymous", "restricted", "blocked", "unknown", "unavailable", "private"})
_WITHHELD_NUMBERS = frozenset({"266696687", "7378742833", "2562533", "8656696", "86282452253"})
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The call gets the media stream `stream_id`; `secret` is what its `start` must carry, once."""

    stream_id: str
    secret: str

    def __repr__(self) -> str:
        return f"Accepted(stream_id={self.stream_id!r})"


@dataclass(frozen=True, slots=True)
class Refused:
    """busy: full or draining, tell the carrier at once. unknown_number: no agent. failed: apologise to the caller."""

    reason: Literal["busy", "unknown_number", "failed"]


@dataclass(frozen=True, slots=True)
class HangUp:
    """Nothing more to do for this call; `text` is said before, in `language` (BCP 47)."""

    text: str = ""
    language: str = ""


@dataclass(frozen=True, slots=True)
class Dial:
    """Somebody else takes the call over: `number` is E.164."""

    number: str


class TwilioCalls(Protocol):
    """The calls behind the webhooks.

    Each form holds all parameters (of a name that repeats, the first value) and, when Twilio sent one, the idempotency
    token under IDEMPOTENCY_HEADER, a name that no parameter has.
    """

    async def accept(self, form: Mapping[str, str]) -> Accepted | Refused:
        """Take the call `form["CallSid"]` or not. Asked again for the same call it must answer the same."""

    async def on_status(self, form: Mapping[str, str]) -> None:
        """Progress of a call; any order, repeats."""

    async def on_stream_status(self, form: Mapping[str, str]) -> None:
        """Progress of a stream; any order, repeats."""

    async def after_stream(self, form: Mapping[str, str]) -> Accepted | Dial | HangUp:
        """Our side has closed the stream: carry on with a second one, put the call through, or end it."""

    async def after_dial(self, form: Mapping[str, str]) -> HangUp:
        """The call was put through, and that is over: `form["DialCallStatus"]` says how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TwilioRouteSettings:
    """`public_url` is what Twilio has configured, without a slash at the end."""

    public_url: str
    on_unknown_number: Literal["reject", "apologise"] = "reject"
    apology: str = "We are sorry, we cannot take your call right now. Please call again later."
    apology_language: str = "en-US"
    answer_ms: int = 8000  # Twilio waits for 15 s; the caller hears nothing meanwhile


def caller_number(value: str) -> str:
    """The caller's E.164 number, `client:` or `sip:` address; empty when it is withheld or no such thing."""
    value = value.strip()
    if value.startswith(("client:", "sip:", "sips:")):
        return value
    if value.lower() in _WITHHELD or value.removeprefix("+").removeprefix("1") in _WITHHELD_NUMBERS:
        return ""
    if value.removeprefix("+") in _WITHHELD_NUMBERS:
        return ""
    return value if _E164.fullmatch(value) else ""


def media_url(public_url: str, carrier: str, stream_id: str) -> str:
    """The WebSocket address of a media stream below `public_url`."""
    scheme, _, rest = public_url.rstrip("/").partition("://")
    return f"{'wss' if scheme == 'https' else 'ws'}://{rest}/media/{carrier}/{stream_id}"


def hand_over_twiml(public_url: str, number: str) -> bytes:
    """Put the call through to `number`, and be asked what follows."""
    return twiml.dial(number, public_url.rstrip("/") + AFTER_DIAL_PATH, timeout_s=DIAL_S)


def twilio_routes(calls: TwilioCalls, signature: TwilioSignature, settings: TwilioRouteSettings) -> list[Route]:
    """The five routes. `signature` must stand for `settings.public_url`."""
    hooks = _Hooks(calls, signature, settings)
    # A fault of ours is turned into an answer here, inside the route: the app's own handler would say 500.
    # It replaces the app's handlers as a whole, so a refusal has to become a problem here too.
    spoken = [Middleware(ExceptionMiddleware, handlers={Exception: hooks.apologise, HTTPException: _refuse})]
    return [
        Route(VOICE_PATH, hooks.voice, methods=["POST", "GET"], middleware=spoken),
        Route(AFTER_STREAM_PATH, hooks.after_stream, methods=["POST", "GET"], middleware=spoken),
        Route(AFTER_DIAL_PATH, hooks.after_dial, methods=["POST", "GET"], middleware=spoken),
        Route(STATUS_PATH, hooks.status, methods=["POST"]),
        Route(STREAM_STATUS_PATH, hooks.stream_status, methods=["POST"]),
    ]


class _Hooks:
    def __init__(self, calls: TwilioCalls, signature: TwilioSignature, settings: TwilioRouteSettings) -> None:
        self._calls = calls
        self._signature = signature
        self._settings = settings
        self._apology = twiml.say_and_hang_up(settings.apology, settings.apology_language)

    async def voice(self, request: Request) -> Response:
        form = await self._checked_form(request)
        async with asyncio.timeout(self._settings.answer_ms / 1000):
            answer = await self._calls.accept(form)
        if isinstance(answer, Accepted):
            return self._connect(answer)
        log.info("call %s refused: %s", form.get("CallSid", ""), answer.reason)
        if answer.reason == "busy":
            return _twiml(twiml.reject("busy"))
        if answer.reason == "unknown_number" and self._settings.on_unknown_number == "reject":
            return _twiml(twiml.reject("rejected"))
        return _twiml(self._apology)

    async def after_stream(self, request: Request) -> Response:
        form = await self._checked_form(request)
        async with asyncio.timeout(self._settings.answer_ms / 1000):
            answer = await self._calls.after_stream(form)
        if isinstance(answer, Accepted):
            return self._connect(answer)
        if isinstance(answer, Dial):
            return _twiml(hand_over_twiml(self._settings.public_url, answer.number))
        return _over(answer)

    async def after_dial(self, request: Request) -> Response:
        form = await self._checked_form(request)
        async with asyncio.timeout(self._settings.answer_ms / 1000):
            return _over(await self._calls.after_dial(form))

    async def status(self, request: Request) -> Response:
        return await self._told(request, self._calls.on_status)

    async def stream_status(self, request: Request) -> Response:
        return await self._told(request, self._calls.on_stream_status)

    async def apologise(self, request: Request, error: Exception) -> Response:
        """Answer a fault of ours; the caller hears an apology and never a word of the exception."""
        if not getattr(request.state, "is_signed", False):
            # Nobody is on the line yet: the body did not come, and http_adapter.py has its own answer to that.
            raise error
        log.error("%s: cannot answer", request.url.path, exc_info=error)
        return _twiml(self._apology)

    async def _told(self, request: Request, tell: Callable[[Mapping[str, str]], Awaitable[None]]) -> Response:
        form = await self._checked_form(request)
        async with asyncio.timeout(self._settings.answer_ms / 1000):
            await tell(form)
        return Response(status_code=204)

    def _connect(self, answer: Accepted) -> Response:
        public_url = self._settings.public_url.rstrip("/")
        return _twiml(
            twiml.connect_stream(
                media_url(public_url, "twilio", answer.stream_id),
                {"secret": answer.secret},
                public_url + AFTER_STREAM_PATH,
                public_url + STREAM_STATUS_PATH,
                name=answer.stream_id,
            )
        )

    async def _checked_form(self, request: Request) -> Mapping[str, str]:
        """The parameters of a request that Twilio signed. Raises HTTPException 400, 403, 413, 415."""
        raw_path: bytes = request.scope["raw_path"]
        raw_query: bytes = request.scope["query_string"]
        in_query = _pairs(raw_query)
        in_body: Params = ()
        if request.method == "POST":
            body = await read_body(request, MAX_FORM_BYTES)
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if body and kind != FORM_TYPE:
                raise HTTPException(415, f"expected {FORM_TYPE}")
            in_body = _pairs(body)
        signed = request.headers.get(TWILIO_HEADER, "")
        if not self._signature.is_valid_form(
            raw_path, raw_query, in_body, signed, request.headers.get(TWILIO_SETTINGS_HEADER)
        ):
            # Names only: values are callers' numbers.
            names = ",".join(sorted({name for name, _ in in_body}))
            log.warning("%s: signature refused; parameters %s", request.url.path, names[:500])
            raise HTTPException(403, "signature refused")
        request.state.is_signed = True
        form: dict[str, str] = {}
        for name, value in (*in_body, *in_query):
            form.setdefault(name, value)
        if token := request.headers.get(IDEMPOTENCY_HEADER):
            form[IDEMPOTENCY_HEADER] = token
        return form


def _pairs(encoded: bytes) -> Params:
    """Decoded pairs of a form or query. Raises HTTPException 400: no such thing, or too many."""
    try:
        return parse_qsl(
            encoded.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FORM_FIELDS
        )
    except ValueError as error:
        raise HTTPException(400, "expected a form in UTF-8 with percent-encoding") from error


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, error.detail)


def _over(answer: HangUp) -> Response:
    return _twiml(twiml.say_and_hang_up(answer.text, answer.language) if answer.text else twiml.hang_up())


def _twiml(document: bytes) -> Response:
    return Response(document, headers={"content-type": twiml.CONTENT_TYPE})
