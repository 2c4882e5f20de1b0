"""Logs: one JSON object (or one text line) a record, with the call's id, without secrets, phone numbers and speech.

    logger ─► Handler: format and redact at once ─► bounded queue ─► writer thread ─► stream

Logging never blocks a call: with the sink stuck the queue fills, further lines are dropped and counted, and the
first line after that says how many. Extra fields of a record become fields of the object. What was said in a call is
handed over as `Spoken`: its length is shown, its words only where the operator asked for them.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import queue
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import IO, Any

import orjson

from server.config import LogConfig

QUEUE_LINES = 10_000
LINE_MAX_CHARS = 8192
"""Of one text; longer ones are cut and say so."""
STOP_S = 2.0
FIELDS_MAX = 32

call_id: contextvars.ContextVar[str] = contextvars.ContextVar("call_id", default="")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "call_id"}
_KEYS = frozenset({"time", "level", "logger", "message", "call_id", "error"})

_UNPRINTABLE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What formatting a record may raise: wrong arguments, or a __str__ that fails. It must not end the call."""

_PHONE = re.compile(r"(?<![\w+])\+([1-9]\d{6,14})(?!\d)")
# The same where a URI or a form has it: sip:15551234567@host, From=%2B15551234567.
_URI_PHONE = re.compile(r"(?i)(\b(?:sips?|tel):\+?|%2B)([1-9]\d{6,14})(?!\d)")
_CARD = re.compile(r"(?<![\w.+-])(?:\d[ -]?){12,18}\d(?![\w-])")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}")
_NAMED = re.compile(
    r"(?i)((?:api[-_]?key|auth[-_]?token|access[-_]?token|authorization|password|passwd|secret|token|signature)"
    r"[\"']?\s*[=:]\s*[\"']?)(?!\*\*\*)[^\s\"',;&})]{4,}"
)
_NAMES = ("key", "token", "authorization", "passw", "secret", "signature")
"""Each name in `_NAMED` has one of these in it."""
_ALL_WORDS = " ".join(("sip", "tel:", "%2b", "bearer", "basic", *_NAMES))
_USERINFO = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/@]+@")
_SECRET_FIELD = re.compile(r"(?i)(api_?key|token|secret|password|authorization|signature)$")
_TWO_DIGIT_CODES = frozenset(
    "20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 64 65 66 "
    "81 82 84 86 90 91 92 93 94 95 98".split()
)
"""Country codes of two digits (ITU-T E.164 list); 1 and 7 have one, all others three."""

# A line a request; and below info Groq's SDK writes the whole request, which is the conversation.
_QUIET = {
    logging.WARNING: ("httpx", "httpx2", "httpcore", "httpcore2", "hpack", "asyncio", "hypercorn.access"),
    logging.INFO: ("groq", "openai"),
}


class Spoken:
    """Words of a caller or of an agent, for a log line. Any formatting shows how much it was, never what."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    @property
    def chars(self) -> int:
        return len(self.text)

    @property
    def words(self) -> int:
        return len(self.text.split())

    def __repr__(self) -> str:
        return f"{self.words} words, {self.chars} characters"


@contextlib.contextmanager
def bind_call(identity: str) -> Iterator[None]:
    """Everything logged inside, and in tasks that are started inside, carries this call's id."""
    token = call_id.set(identity)
    try:
        yield
    finally:
        call_id.reset(token)


def redact(text: str) -> str:
    """`text` without phone numbers (+CC…last 2), card numbers (Luhn), credentials and passwords in URLs."""
    if text.isidentifier():
        # Most fields are one word; every pattern wants a space, a sign, or digits that no letter precedes.
        return text
    # To look for a word costs a tenth of what the pattern costs that has it. Where case is ignored, letters of other
    # alphabets pass for some of ours, which only the patterns know: every word is taken to be there.
    lower = text.lower() if text.isascii() else _ALL_WORDS
    has_name = ":" in text or "=" in text
    if "sip" in lower or "tel:" in lower or "%2b" in lower:
        text = _URI_PHONE.sub(lambda match: f"{match[1]}{_short(match[2])}", text)
    if "+" in text:
        text = _PHONE.sub(lambda match: f"+{_short(match[1])}", text)
    if "://" in text:
        text = _USERINFO.sub(r"\1***@", text)
    if "bearer" in lower or "basic" in lower:
        text = _BEARER.sub(r"\1 ***", text)
    if has_name and any(one in lower for one in _NAMES):
        text = _NAMED.sub(r"\1***", text)
    return _CARD.sub(_hide_card, text)


class Handler(logging.Handler):
    """Formats, redacts, queues. `start` the writer before use; `stop` writes what is queued.

    Attributes:
        dropped: lines that found the queue full.
    """

    def __init__(
        self,
        stream: IO[str],
        *,
        text: bool = False,
        secrets: Iterable[str] = (),
        queue_lines: int = QUEUE_LINES,
        transcripts: bool = False,
    ) -> None:
        """`transcripts`: the words of `Spoken` fields are shown too."""
        super().__init__()
        self.dropped = 0
        self._stream = stream
        self._is_text = text
        self._shows_speech = transcripts
        # Long ones first: one secret may be part of another.
        self._secrets = tuple(sorted((one for one in secrets if len(one) >= 4), key=len, reverse=True))
        self._queue: queue.Queue[str | None] = queue.Queue(queue_lines)
        self._told = 0
        self._thread = threading.Thread(target=self._write_all, name="logs", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write what is queued, at most for 2 s: a stuck sink must not keep the process alive."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=STOP_S)
            self._thread.join(STOP_S)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._text_line(record) if self._is_text else self._json_line(record)
        except _UNPRINTABLE:
            line = f'{{"level":"error","logger":"server.logs","message":"unprintable record of {record.name}"}}'
        try:
            self._queue.put_nowait(line)
        except queue.Full:
            self.dropped += 1

    def clean(self, text: str) -> str:
        """`text` redacted, without known secrets, bounded."""
        if len(text) > LINE_MAX_CHARS:
            text = f"{text[:LINE_MAX_CHARS]}… ({len(text)} characters)"
        if not text.isascii():
            # A lone surrogate has no form in UTF-8.
            text = text.encode("utf-8", "replace").decode()
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, "***")
        return redact(text)

    def _json_line(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.clean(record.getMessage()),
        }
        if identity := _call_of(record):
            line["call_id"] = identity
        for name, value in self._extras(record):
            line[f"{name}_" if name in _KEYS else name] = self._field(name, value)
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = self.clean(logging.Formatter().formatException(record.exc_info))
        return orjson.dumps(
            line, default=lambda value: self.clean(repr(value)), option=orjson.OPT_NON_STR_KEYS
        ).decode()

    def _text_line(self, record: logging.LogRecord) -> str:
        parts = [_time(record.created)[11:23], f"{record.levelname.lower():7}", self.clean(record.getMessage())]
        parts += [f"{name}={_shown(self._field(name, value))}" for name, value in self._extras(record)]
        if identity := _call_of(record):
            parts.append(f"call_id={identity}")
        line = " ".join(parts).replace("\r", "\\r").replace("\n", "\\n")
        if record.exc_info and record.exc_info[0] is not None:
            line += "\n" + self.clean(logging.Formatter().formatException(record.exc_info))
        return line

    def _extras(self, record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
        for name, value in _extras(record):
            if isinstance(value, Spoken):
                yield f"{name}_chars", value.chars
                yield f"{name}_words", value.words
                if not self._shows_speech:
                    continue
                value = value.text
            yield name, value

    def _field(self, name: str, value: Any) -> Any:
        if _is_secret(name) and not isinstance(value, int | float):
            return "***"
        if isinstance(value, str):
            return self.clean(value)
        if isinstance(value, dict):
            return {str(key): self._field(str(key), one) for key, one in list(value.items())[:FIELDS_MAX]}
        if isinstance(value, list | tuple | set):
            return [self._field(name, one) for one in list(value)[:FIELDS_MAX]]
        return value if isinstance(value, bool | int | float | None) else self.clean(str(value))

    def _write_all(self) -> None:
        while (line := self._queue.get()) is not None:
            # A closed or full sink is nobody's reason to stop; there is nowhere left to say so.
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(line + "\n")
                if self.dropped > self._told:
                    lost, self._told = self.dropped - self._told, self.dropped
                    record = logging.makeLogRecord({"name": "server.logs", "levelname": "WARNING", "lines": lost})
                    record.msg = "log lines were dropped: the sink was stuck"
                    self._stream.write((self._text_line if self._is_text else self._json_line)(record) + "\n")
                if self._queue.empty():
                    self._stream.flush()


def setup(config: LogConfig, *, secrets: Iterable[str] = (), stream: IO[str] | None = None) -> Handler:
    """Make the root logger write to `stream` (standard output) and to nothing else. Returns the running handler."""
    is_text = config.format == "text"
    handler = Handler(stream or sys.stdout, text=is_text, secrets=secrets, transcripts=config.transcripts)
    handler.start()
    root = logging.getLogger()
    for other in list(root.handlers):
        root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(config.level.upper())
    # No line shows where it was logged, nor in which thread or process: half of a record's cost, not paid.
    # Source: logging HOWTO, "Optimization".
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    for level, names in _QUIET.items():
        for name in names:
            logging.getLogger(name).setLevel(max(level, root.level))
    return handler


def _call_of(record: logging.LogRecord) -> str:
    return str(getattr(record, "call_id", "") or call_id.get())


def _extras(record: logging.LogRecord) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in vars(record).items() if name not in _STANDARD][:FIELDS_MAX]


@functools.lru_cache(maxsize=1024)
def _is_secret(name: str) -> bool:
    return _SECRET_FIELD.search(name) is not None


@functools.lru_cache(maxsize=2)
def _second(at_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_s))


def _time(created: float) -> str:
    return f"{_second(int(created))}.{int(created % 1 * 1000):03d}Z"


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value if re.fullmatch(r"[\w.:/+*…-]+", value) else orjson.dumps(value).decode()
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _short(digits: str) -> str:
    """Country code and the last two digits of an E.164 number."""
    code_digits = 1 if digits[0] in "17" else 2 if digits[:2] in _TWO_DIGIT_CODES else 3
    return f"{digits[:code_digits]}…{digits[-2:]}"


def _hide_card(match: re.Match[str]) -> str:
    digits = [int(c) for c in match[0] if c.isdigit()]
    # Luhn, ISO/IEC 7812-1 annex B: every second digit from the right doubled.
    doubled = [d if i % 2 == 0 else d * 2 - 9 * (d > 4) for i, d in enumerate(reversed(digits))]
    return "[card]" if sum(doubled) % 10 == 0 and len(set(digits)) > 1 else match[0]
