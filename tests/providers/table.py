"""What is tried with every adapter, as data: one row for each way in which a service behaves, one column an adapter.

A cell is a tuple of cases (test_conformance.py runs each of them) or, where the row has no meaning for the adapter, the
reason in words. There are no other cells. docs/providers.md shows the table; its text is written by

    python -m tests.providers.table
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from providers.errors import (
    ProviderError,
    ProviderFiltered,
    ProviderProtocolError,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from providers.openai.answer import MAX_ANSWER_CHARS

Heard = Literal["nothing", "part", "whole"]
Shield = Literal["", "deadlines", "check"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing that happens, and how it must end. Always: nothing comes after an error, and the next request is whole.

    Args:
        fault, how: of the adapter's simulator, in its own words; "closed": the adapter itself is closed in the middle.
        times: requests (of Azure's SDK: connections) that suffer and are made, neither more nor fewer.
        at, between, tries: an argument of `how` that is drawn between two bounds, so many times.
        error, attributes: exactly this type with these values; None: a whole answer.
        heard: what came before the error: nothing, or a part of the right answer (with tries: perhaps nothing).
        shield: what notices: the adapter itself, the conversation's deadlines around it (providers/deadline.py), or
            the check of the sound that every voice passes (providers/fallback_synthesizer.py).
        first_ms, idle_ms: of these deadlines.
        most: characters or ms of audio that an answer without end is cut off at.
        options: of the adapter. request: what is different in the request.
    """

    fault: str = ""
    how: Mapping[str, Any] = field(default_factory=dict)
    times: int = 1
    at: str = ""
    between: tuple[int, int] = (0, 0)
    tries: int = 1
    error: type[ProviderError] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    heard: Heard = "nothing"
    shield: Shield = ""
    first_ms: int = 5000
    idle_ms: int = 5000
    most: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)

    def patient(self, times: int) -> Case:
        """The same with longer deadlines around it, for a machine that is busy."""
        return dataclasses.replace(self, first_ms=times * self.first_ms, idle_ms=times * self.idle_ms)

    @property
    def outcome(self) -> str:
        """As the documentation says it."""
        if self.error is None:
            return "whole"
        detail = self.attributes.get("phase") or self.attributes.get("status") or ""
        word = self.error.__name__.removeprefix("Provider").removesuffix("Error").lower()
        return f"{word} {detail}".rstrip() + {"": "", "deadlines": "¹", "check": "²"}[self.shield]


Cell = tuple[Case, ...] | str

ROWS: Mapping[str, str] = {
    "stream": "a whole answer, in its form, the same each time; closing twice is once",
    "cancel": "closing and cancelling take less than a frame of 20 ms, and the next request is answered",
    "bad request": "a model, voice, language, format or text that the service does not take",
    "first": "nothing useful in time",
    "idle": "a beginning, and then nothing more",
    "silent": "not one byte comes back, or none after a beginning: the adapter's own limit",
    "slow": "late, but in time",
    "401": "the key is refused",
    "403": "the account may not do this",
    "429": "too many requests, or no money",
    "5xx": "the service fails, or is busy with itself",
    "cut": "the connection is lost before, or at a random place inside, the answer",
    "garbage": "an answer in another form, or of nonsense",
    "oversize": "far more than was asked for",
    "comments": "keep-alive comments and nothing else",
    "stall": "a pause in the middle, in time",
    "short": "a proper end after a tenth of the sound",
    "wrong rate": "every sample twice",
}
WORDS_HAVE_NO_RATE = "text has no duration and no sample rate"
NO_EVENTS = "its answers are no server-sent events, which alone have comments"
STALL_OF_TEXT = "a pause between words is the row slow"
IN_PROCESS = "computed in this process: there is no service, connection or account"

# ── OpenAI's protocol: chat ───────────────────────────────────────────────────────────────────────────────────

PROTOCOL = {"error": ProviderProtocolError, "attributes": {"retryable": True}}
UNAVAILABLE = {"error": ProviderUnavailable, "attributes": {"retryable": True}}
QUICK = {"read_ms": 150}


def rejected(status: int, **more: Any) -> dict[str, Any]:
    return {"error": ProviderRejected, "attributes": {"status": status, "retryable": status in (429, 498)} | more}


def timeout(phase: str, **more: Any) -> dict[str, Any]:
    return {"error": ProviderTimeout, "attributes": {"phase": phase, "retryable": True} | more}


# Tokens in, of a text of seventeen.
INSIDE = {"how": {"after_tokens": 4}, "heard": "part"}
LATE = {"shield": "deadlines", "first_ms": 60, "idle_ms": 5000}
MUTE = {"shield": "deadlines", "first_ms": 5000, "idle_ms": 60}
IN_TIME: dict[str, Any] = {"shield": "deadlines", "first_ms": 6000, "idle_ms": 6000}

CHAT: dict[str, Cell] = {
    "stream": (Case(),),
    "cancel": (Case(),),
    "bad request": (
        Case(request={"model": "no-such-model"}, **rejected(404)),
        Case(fault="context_length", **rejected(400, code="context_length_exceeded")),
        Case(fault="unprocessable", **rejected(422)),
        Case(fault="content_filter", error=ProviderFiltered, attributes={"status": 400, "retryable": False}),
    ),
    "first": (
        Case(fault="slow_first_token", how={"delay_ms": 9000}, **LATE, **timeout("first")),
        Case(fault="silence", **LATE, **timeout("first")),
    ),
    "idle": (
        Case(fault="silence", **INSIDE, **MUTE, **timeout("idle")),
        Case(fault="stall", how={"after_tokens": 1, "delay_ms": 9000}, heard="part", **MUTE, **timeout("idle")),
    ),
    "silent": (
        Case(fault="slow_first_token", how={"delay_ms": 9000}, options=QUICK, **timeout("first", limit_ms=150)),
        Case(fault="silence", **INSIDE, options=QUICK, **timeout("idle", limit_ms=150)),
    ),
    "slow": (
        Case(fault="slow_first_token", how={"delay_ms": 80}, heard="whole", **IN_TIME),
        Case(fault="stall", how={"after_tokens": 4, "delay_ms": 80}, heard="whole", **IN_TIME),
    ),
    "401": (Case(fault="unauthorized", **rejected(401)),),
    "403": (Case(fault="forbidden", **rejected(403)),),
    "429": (
        Case(fault="rate_limit", **rejected(429, retry_after_ms=2000)),
        Case(fault="slow_down", **rejected(429)),
        Case(fault="insufficient_quota", **rejected(429, retryable=False, code="insufficient_quota")),
        Case(fault="capacity", **rejected(498)),
    ),
    "5xx": tuple(
        Case(fault=kind, **UNAVAILABLE)
        for kind in ("server_error", "bad_gateway", "overloaded", "gateway_timeout", "conflict")
    ),
    "cut": (
        Case(fault="close", **UNAVAILABLE),
        Case(fault="reset", **UNAVAILABLE),
        *(
            Case(fault=kind, at="after_tokens", between=(0, 16), tries=5, heard="part", **UNAVAILABLE)
            for kind in ("stream_reset", "stream_cut")
        ),
        Case(fault="early_end", at="after_tokens", between=(0, 16), tries=5, heard="part", **PROTOCOL),
        Case(fault="error_event", **INSIDE, **UNAVAILABLE),
    ),
    "garbage": (
        Case(fault="garbage", at="after_tokens", between=(0, 16), tries=5, heard="part", **PROTOCOL),
        Case(fault="bad_utf8", **INSIDE, **PROTOCOL),
        Case(fault="json_200", **PROTOCOL),
        Case(fault="empty_200", **PROTOCOL),
    ),
    "oversize": (Case(fault="endless", how={"after_tokens": 1}, heard="part", most=MAX_ANSWER_CHARS, **PROTOCOL),),
    "comments": (
        Case(fault="comments", how={"every_ms": 10}, **LATE, **timeout("first")),
        Case(fault="comments", how={"every_ms": 10, "after_tokens": 4}, heard="part", **MUTE, **timeout("idle")),
    ),
    "stall": STALL_OF_TEXT,
    "short": WORDS_HAVE_NO_RATE,
    "wrong rate": WORDS_HAVE_NO_RATE,
}

# ── OpenAI's protocol: transcription, one request for an utterance ────────────────────────────────────────────

EAR: dict[str, Cell] = {
    "stream": (Case(),),
    "cancel": (Case(),),
    "bad request": (
        Case(request={"language": "?"}, times=0, **rejected(400)),
        Case(request={"model": "no-such-model"}, **rejected(404)),
    ),
    # Asked twice: a failure that may pass loses no words.
    "first": (Case(fault="silence", times=2, options=QUICK, **timeout("first", limit_ms=150)),),
    "idle": (
        # In one piece: nobody has heard anything before all of it is there.
        Case(fault="silence", how={"after_tokens": 10}, times=2, options=QUICK, **timeout("first", limit_ms=150)),
    ),
    "silent": (Case(fault="silence", options={"total_ms": 150}, **timeout("total", limit_ms=150)),),
    "slow": (
        Case(fault="slow_first_token", how={"delay_ms": 80}, heard="whole"),
        Case(fault="stall", how={"delay_ms": 80, "after_tokens": 10}, heard="whole"),
    ),
    "401": (Case(fault="unauthorized", **rejected(401)),),
    "403": (Case(fault="forbidden", **rejected(403)),),
    "429": (
        Case(fault="rate_limit", how={"retry_after": "7"}, **rejected(429, retry_after_ms=7000)),
        Case(fault="rate_limit", how={"retry_after_ms": 20}, heard="whole"),
        Case(fault="insufficient_quota", **rejected(429, retryable=False)),
    ),
    "5xx": (
        *(Case(fault=kind, times=2, **UNAVAILABLE) for kind in ("server_error", "bad_gateway", "overloaded")),
        Case(fault="overloaded", heard="whole"),
    ),
    "cut": (
        *(Case(fault=kind, times=2, **UNAVAILABLE) for kind in ("close", "reset")),
        *(
            Case(fault=kind, at="after_tokens", between=(0, 60), tries=4, times=times, heard=heard, **error)
            for kind in ("stream_reset", "stream_cut")
            for times, heard, error in ((2, "nothing", UNAVAILABLE), (1, "whole", {}))
        ),
    ),
    "garbage": tuple(
        Case(fault=kind, times=2, **PROTOCOL) for kind in ("garbage", "bad_utf8", "json_200", "empty_200")
    ),
    "oversize": (Case(fault="endless", times=2, **PROTOCOL),),
    "comments": NO_EVENTS,
    "stall": STALL_OF_TEXT,
    "short": WORDS_HAVE_NO_RATE,
    "wrong rate": WORDS_HAVE_NO_RATE,
}

# Only OpenAI's newer models write while one listens, where that is asked for.
WRITTEN = {"options": {"stream": True}, "how": {"after_tokens": 4}, "times": 2}


def also(row: str, *cases: Case) -> Cell:
    cell = EAR[row]
    assert isinstance(cell, tuple)
    return (*cell, *cases)


WRITING_EAR = EAR | {
    "idle": also("idle", Case(fault="silence", **WRITTEN | {"options": QUICK | {"stream": True}}, **timeout("idle"))),
    "slow": also("slow", Case(fault="stall", **WRITTEN | {"how": {"after_tokens": 4, "delay_ms": 80}, "times": 1},
                              heard="whole")),
    "5xx": also("5xx", Case(fault="error_event", **WRITTEN, **UNAVAILABLE)),
    "cut": also(
        "cut",
        *(Case(fault=kind, **WRITTEN, **UNAVAILABLE) for kind in ("stream_reset", "stream_cut")),
        Case(fault="early_end", **WRITTEN, **PROTOCOL),
        Case(fault="stream_cut", **WRITTEN | {"times": 1}, heard="whole"),
    ),
    "garbage": also("garbage", Case(fault="garbage", **WRITTEN, **PROTOCOL)),
    "oversize": also("oversize", Case(fault="endless", **WRITTEN, **PROTOCOL)),
}  # fmt: skip

# ── OpenAI's protocol: speech ─────────────────────────────────────────────────────────────────────────────────

# Chunks of 100 ms in, of some forty.
BEGUN = {"how": {"after_tokens": 3}, "heard": "part"}

MOUTH: dict[str, Cell] = {
    "stream": (Case(),),
    "cancel": (Case(),),
    "bad request": (Case(request={"voice": "nobody"}, **rejected(400)),),
    "first": (
        Case(fault="slow_first_token", how={"delay_ms": 9000}, **LATE, **timeout("first")),
        Case(fault="silence", **LATE, **timeout("first")),
    ),
    "idle": (Case(fault="silence", **BEGUN, **MUTE, **timeout("idle")),),
    "silent": (
        Case(fault="slow_first_token", how={"delay_ms": 9000}, options=QUICK, **timeout("first", limit_ms=150)),
        Case(fault="silence", **BEGUN, options=QUICK, **timeout("idle", limit_ms=150)),
    ),
    "slow": (Case(fault="slow_first_token", how={"delay_ms": 80}, heard="whole", **IN_TIME),),
    "401": (Case(fault="unauthorized", **rejected(401)),),
    "403": (Case(fault="forbidden", **rejected(403)),),
    "429": (
        Case(fault="rate_limit", **rejected(429, retry_after_ms=2000)),
        Case(fault="insufficient_quota", **rejected(429, retryable=False)),
    ),
    "5xx": tuple(Case(fault=kind, **UNAVAILABLE) for kind in ("server_error", "bad_gateway", "overloaded")),
    "cut": (
        Case(fault="close", **UNAVAILABLE),
        *(
            Case(fault=kind, at="after_tokens", between=(0, 38), tries=5, heard="part", **UNAVAILABLE)
            for kind in ("stream_reset", "stream_cut")
        ),
    ),
    "garbage": (
        Case(fault="json_200", **PROTOCOL),
        Case(fault="empty_200", **PROTOCOL),
        Case(fault="garbage", shield="check", **PROTOCOL),
    ),
    "oversize": (Case(fault="endless", heard="part", how={"after_tokens": 3}, most=20_700, **PROTOCOL),),
    "comments": NO_EVENTS,
    "stall": (Case(fault="stall", how={"after_tokens": 3, "delay_ms": 80}, heard="whole", **IN_TIME),),
    "short": (Case(fault="early_end", **BEGUN, **PROTOCOL),),
    "wrong rate": (Case(fault="wrong_rate", shield="check", **PROTOCOL),),
}

# ── Azure Speech ──────────────────────────────────────────────────────────────────────────────────────────────


def http(status: int, times: int, **outcome: Any) -> Case:
    return Case(fault="http", how={"status": status}, times=times, **outcome)


AZURE_EAR: dict[str, Cell] = {
    "stream": (Case(),),
    "cancel": (Case(),),
    "bad request": (Case(request={"audio_format": "s16 24000"}, times=0, **rejected(400)),),
    "first": (Case(fault="silent", options={"final_wait_ms": 100, "empty_wait_ms": 300}, **timeout("first")),),
    "idle": (
        # Inside the second utterance; what it had said of the first is out.
        Case(fault="mute", how={"after_ms": 1600}, heard="part",
             options={"final_wait_ms": 600, "empty_wait_ms": 800}, **timeout("idle")),
    ),
    "silent": (Case(fault="hold", options={"connect_ms": 150}, **timeout("connect", limit_ms=150)),),
    "slow": (
        Case(fault="slow", how={"delay_ms": 100}, heard="whole"),
        Case(fault="late_final", how={"delay_ms": 100}, heard="whole"),
    ),
    "401": (http(401, 1, **rejected(401)),),
    "403": (http(403, 1, **rejected(403)),),
    "429": (
        http(429, 1, **rejected(429)),
        Case(fault="close", how={"code": 4429, "reason": "quota", "after_ms": 300}, **rejected(429)),
    ),
    "5xx": (
        http(503, 1, **UNAVAILABLE),
        Case(fault="close", how={"code": 1011, "after_ms": 300}, **UNAVAILABLE),
        Case(fault="error_phrase", **UNAVAILABLE),
    ),
    "cut": (
        Case(fault="refuse", **UNAVAILABLE),
        Case(fault="cut", at="after_ms", between=(50, 3000), tries=5, heard="part", **UNAVAILABLE),
    ),
    "garbage": tuple(
        # The SDK passes over what it cannot read.
        Case(fault=kind, heard="whole")
        for kind in ("garbage_text", "garbage_binary", "bad_json", "unknown_path", "duplicate_final")
    ),
    "oversize": (
        # The package cuts an interim at 2048 bytes; a final comes whole.
        Case(fault="oversize", how={"size_bytes": 1 << 20}, heard="whole"),
        Case(fault="long_final", how={"size_bytes": 1 << 20}, **PROTOCOL),
    ),
    "comments": NO_EVENTS,
    "stall": STALL_OF_TEXT,
    "short": WORDS_HAVE_NO_RATE,
    "wrong rate": WORDS_HAVE_NO_RATE,
}
AZURE_VOICE: dict[str, Cell] = {
    "stream": (Case(),),
    "cancel": (Case(),),
    "bad request": (
        Case(request={"voice": "en-US-NobodyNeural"}, **rejected(400)),
        Case(request={"language": "xx-XX"}, times=0, **rejected(400)),
        Case(request={"text": "word " * 20_000}, times=0, **rejected(400)),
    ),
    "first": (Case(fault="silent", **LATE, **timeout("first")),),
    "idle": (Case(fault="mute", how={"after_ms": 500}, heard="part", **MUTE, **timeout("idle")),),
    # The SDK's own limit is ten seconds: the conversation's are shorter.
    "silent": (Case(fault="hold", **LATE, **timeout("first")),),
    "slow": (Case(fault="slow", how={"delay_ms": 80}, heard="whole", **IN_TIME),),
    # The SDK asks for a connection twice, unless the account is refused.
    "401": (http(401, 1, **rejected(401)),),
    "403": (http(403, 1, **rejected(403)),),
    "429": (
        http(429, 2, **rejected(429)),
        Case(fault="close", how={"code": 4429, "after_ms": 200}, heard="part", **rejected(429)),
    ),
    "5xx": (
        http(503, 2, **UNAVAILABLE),
        Case(fault="close", how={"code": 1011, "after_ms": 200}, heard="part", **UNAVAILABLE),
    ),
    "cut": (
        Case(fault="refuse", times=2, **UNAVAILABLE),
        Case(fault="cut", at="after_ms", between=(1, 2500), tries=5, heard="part", **UNAVAILABLE),
    ),
    "garbage": (
        *(
            Case(fault=kind, heard="whole", **IN_TIME)
            for kind in ("garbage_binary", "unknown_path", "garbage_text", "bad_json")
        ),
        *(Case(fault=kind, shield="check", **PROTOCOL) for kind in ("noise", "riff_head", "flat")),
        Case(fault="empty", **PROTOCOL),
    ),
    "oversize": (Case(fault="oversize", how={"size_bytes": 1 << 20}, **PROTOCOL),),
    "comments": NO_EVENTS,
    "stall": (Case(fault="stall", how={"after_ms": 500, "delay_ms": 80}, heard="whole", **IN_TIME),),
    "short": (Case(fault="short", heard="part", shield="check", **PROTOCOL),),
    "wrong rate": (Case(fault="wrong_rate", shield="check", **PROTOCOL),),
}

# ── without a service ─────────────────────────────────────────────────────────────────────────────────────────

OFFLINE: dict[str, Cell] = dict.fromkeys(ROWS, IN_PROCESS) | {"stream": (Case(),), "cancel": (Case(),)}
OFFLINE_WORDS = OFFLINE | {"short": WORDS_HAVE_NO_RATE, "wrong rate": WORDS_HAVE_NO_RATE, "comments": NO_EVENTS}

# Column -> the service, and the names in an agent, that it stands for.
STANDS_FOR: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "azure-stt": ("stt", ("azure",)),
    "azure-tts": ("tts", ("azure",)),
    "openai": ("llm", ("openai",)),
    "groq": ("llm", ("groq",)),
    "azure-openai": ("llm", ("azure-openai",)),
    "azure-v1": ("llm", ("azure-openai",)),
    "compatible": ("llm", ("compatible",)),
    "openai-stt": ("stt", ("openai-stt",)),
    "groq-stt": ("stt", ("groq-stt",)),
    "openai-tts": ("tts", ("openai-tts",)),
    "groq-tts": ("tts", ("groq-tts",)),
    "moonshine": ("stt", ("moonshine", "moonshine-es")),
    "dialogue": ("llm", ("dialogue",)),
    "pico": ("tts", ("pico",)),
    "scripted-stt": ("stt", ("scripted",)),
    "scripted-llm": ("llm", ("scripted",)),
    "scripted-tts": ("tts", ("scripted",)),
}

TABLE: Mapping[str, Mapping[str, Cell]] = {
    "azure-stt": AZURE_EAR,
    "azure-tts": AZURE_VOICE,
    "openai": CHAT,
    "groq": CHAT,
    "azure-openai": CHAT,
    "azure-v1": CHAT,
    "compatible": CHAT,
    "openai-stt": WRITING_EAR,
    "groq-stt": EAR,
    "openai-tts": MOUTH,
    "groq-tts": MOUTH,
    "moonshine": OFFLINE_WORDS | {
        "bad request": (Case(request={"language": "es-ES"}, times=0, **rejected(400)),),
        "first": "the row is about services; a stream to which nobody speaks gives nothing, which is right",
        "cut": (Case(fault="closed", times=0, **UNAVAILABLE),),
    },
    "dialogue": OFFLINE_WORDS | {
        "bad request": (Case(request={"script": {"intents": {"a": {"answer": "x"}}}}, times=0, **rejected(400)),),
        "first": (Case(options={"word_delay_ms": 5000}, times=0, **LATE, **timeout("first")),),
        "idle": (Case(options={"word_delay_ms": 200}, times=0, heard="part", **MUTE, **timeout("idle")),),
        "slow": (Case(options={"word_delay_ms": 5}, times=0, heard="whole", **IN_TIME),),
    },
    "pico": OFFLINE | {
        "bad request": (Case(request={"language": "ja-JP"}, times=0, **rejected(400)),),
        "cut": (Case(fault="closed", times=0, heard="part", **UNAVAILABLE),),
    },
    "scripted-stt": OFFLINE_WORDS,
    "scripted-llm": OFFLINE_WORDS | {
        "first": (Case(options={"first_token_ms": 5000}, times=0, **LATE, **timeout("first")),),
        "slow": (Case(options={"first_token_ms": 50}, times=0, heard="whole", **IN_TIME),),
    },
    "scripted-tts": OFFLINE | {
        "bad request": (Case(request={"text": "x" * 30_000}, times=0, **UNAVAILABLE),),
        "first": (Case(options={"first_byte_ms": 5000}, times=0, **LATE, **timeout("first")),),
        "slow": (Case(options={"first_byte_ms": 50}, times=0, heard="whole", **IN_TIME),),
    },
}  # fmt: skip


# ── as the documentation shows it ─────────────────────────────────────────────────────────────────────────────


def as_markdown() -> str:
    """Rows of the table against adapters; those that have the same column share it. Reasons stand below."""
    reasons: dict[str, str] = {}

    def in_words(row: str, cell: Cell) -> str:
        if isinstance(cell, str):
            return reasons.setdefault(cell, "abcdefgh"[len(reasons)])
        if row == "cancel":
            return "at once"
        return ", ".join(dict.fromkeys(case.outcome for case in cell))

    columns: dict[tuple[str, ...], list[str]] = {}
    for name, column in TABLE.items():
        columns.setdefault(tuple(in_words(row, column[row]) for row in ROWS), []).append(name)
    lines = [
        "| what the service does | " + " | ".join(", ".join(names) for names in columns.values()) + " |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for at, (row, what) in enumerate(ROWS.items()):
        lines.append(f"| **{row}**: {what} | " + " | ".join(cells[at] for cells in columns) + " |")
    lines.append("\nNot tried, because: " + "; ".join(f"*{mark}* {why}" for why, mark in reasons.items()) + ".")
    return "\n".join(lines)


if __name__ == "__main__":
    print(as_markdown())  # noqa: T201
