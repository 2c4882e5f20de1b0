"""Logs: one object a line, the call's id, no secrets, and no waiting for a stuck sink."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.config import LogConfig
from server.logs import (
    _BEARER,
    _CARD,
    _NAMED,
    _PHONE,
    _URI_PHONE,
    _USERINFO,
    Handler,
    Spoken,
    _hide_card,
    _short,
    bind_call,
    redact,
    setup,
)

logger = logging.getLogger("tests.logs")
WORDS = ("bearer ", "Basic ", "token", "API_KEY", "passwd=", "Signature: ", "secret=abcd", "sip:", "tel:+", "%2B")
STRANGE = ("\u017fecret=abcd", "\u017fip:", "s\u0131gnature=abcd", "BA\u017fIC abcdefgh", "to\u212aen: abcd")
"""Letters that pass for s, i and k where case is ignored."""
GATHERED = ("_srcfile", "logThreads", "logProcesses", "logMultiprocessing")


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    gathered = {name: getattr(logging, name) for name in GATHERED}
    yield root
    root.handlers, root.level = handlers, level
    for name, value in gathered.items():
        setattr(logging, name, value)


def lines_of(*, text: bool = False, secrets: tuple[str, ...] = (), transcripts: bool = False, write: Any) -> list[str]:
    sink = io.StringIO()
    handler = Handler(sink, text=text, secrets=secrets, transcripts=transcripts)
    handler.start()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False  # pytest's own handler must not see the records that cannot be shown
    try:
        write()
    finally:
        logger.propagate = True
        logger.removeHandler(handler)
        handler.stop()
    return sink.getvalue().splitlines()


def test_a_record_is_one_json_object_with_its_fields() -> None:
    def write() -> None:
        logger.info("turn %d", 3, extra={"event": "turn", "stages": {"stt": 12.5}, "ok": True, "none": None})

    (line,) = lines_of(write=write)
    record = json.loads(line)
    assert record["message"] == "turn 3" and record["level"] == "info" and record["logger"] == "tests.logs"
    assert (record["event"], record["stages"], record["ok"], record["none"]) == ("turn", {"stt": 12.5}, True, None)
    assert len(record["time"]) == 24 and record["time"].endswith("Z")
    assert "call_id" not in record


def test_call_id_follows_the_tasks_of_a_call() -> None:
    async def say(word: str) -> None:
        logger.info(word)

    async def call(name: str) -> None:
        with bind_call(name):
            async with asyncio.TaskGroup() as group:
                group.create_task(say(f"from {name}"))

    async def both() -> None:
        await asyncio.gather(call("a"), call("b"))

    records = [json.loads(line) for line in lines_of(write=lambda: asyncio.run(both()))]
    said = [record for record in records if record["logger"] == "tests.logs"]
    assert sorted((r["call_id"], r["message"]) for r in said) == [("a", "from a"), ("b", "from b")]


def test_an_exception_stays_on_its_line() -> None:
    def write() -> None:
        try:
            raise ValueError("line one\nline two +15551234567")
        except ValueError:
            logger.exception("failed")

    (line,) = lines_of(write=write)
    error = json.loads(line)["error"]
    assert "Traceback" in error and "line two +1…67" in error


def test_text_form_is_one_line() -> None:
    (line,) = lines_of(text=True, write=lambda: logger.warning("two\nlines", extra={"say": "a b", "n": 1}))
    assert line[13:] == r'warning two\nlines say="a b" n=1'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("from +15551234567 to +34911234567", "from +1…67 to +34…67"),
        ("+351211234567", "+351…67"),
        ("card 4111 1111 1111 1111 ok", "card [card] ok"),
        ("4111-1111-1111-1111", "[card]"),
        ("4111111111111112", "4111111111111112"),
        ("Authorization: Bearer abcdef.123456", "Authorization: ***"),
        ("got Bearer abcdef123456", "got Bearer ***"),
        ('{"api_key": "k-12345678"}', '{"api_key": "***"}'),
        ("token=abcdefgh&x=1", "token=***&x=1"),
        ("postgresql://user:pa55@db/x", "postgresql://***@db/x"),
        ("tokens: 12, prompt_tokens=512", "tokens: 12, prompt_tokens=512"),
        ("CA0123456789abcdef0123456789abcdef", "CA0123456789abcdef0123456789abcdef"),
        ("at 1732461380123 ms", "at 1732461380123 ms"),
        ("12+3456789", "12+3456789"),
        ("sip:15551234567@host, SIPS:+34911234567", "sip:1…67@host, SIPS:+34…67"),
        ("From=%2B15551234567&To=%2b34911234567", "From=%2B1…67&To=%2b34…67"),
        ("port:5551234567 sip:ann@host", "port:5551234567 sip:ann@host"),
    ],
)
def test_redaction(text: str, shown: str) -> None:
    if text.startswith("Authorization"):
        assert "abcdef" not in redact(text)
    else:
        assert redact(text) == shown


def test_what_was_said_is_shown_by_its_length_unless_asked_for() -> None:
    def write() -> None:
        said = Spoken("My name is Ann")
        logger.info("caller: %s", said, extra={"text": said, "all": [said]})

    (line,) = lines_of(write=write)
    record = json.loads(line)
    assert record["message"] == "caller: 4 words, 14 characters" and record["all"] == ["4 words, 14 characters"]
    assert (record["text_words"], record["text_chars"]) == (4, 14)
    (as_text,) = lines_of(text=True, write=write)
    assert "Ann" not in line + as_text
    (line,) = lines_of(transcripts=True, write=write)
    assert json.loads(line)["text"] == "My name is Ann" and json.loads(line)["text_words"] == 4
    (as_text,) = lines_of(text=True, transcripts=True, write=write)
    assert 'text="My name is Ann"' in as_text


@pytest.mark.parametrize("asked", [False, True])
def test_the_variable_turns_the_words_on(root: logging.Logger, asked: bool) -> None:
    sink = io.StringIO()
    handler = setup(LogConfig(transcripts=asked), stream=sink)
    root.info("caller", extra={"text": Spoken("My name is Ann")})
    handler.stop()
    assert ("Ann" in sink.getvalue()) is asked


def test_an_sdk_that_writes_whole_requests_is_kept_quiet(root: logging.Logger) -> None:
    sink = io.StringIO()
    handler = setup(LogConfig(level="debug"), stream=sink)
    for name in ("groq._base_client", "openai._base_client"):
        logging.getLogger(name).debug("Request options: %s", {"messages": "My name is Ann"})
        logging.getLogger(name).info("heard")
    handler.stop()
    assert [json.loads(line)["message"] for line in sink.getvalue().splitlines()] == ["heard", "heard"]


@given(
    st.integers(10**9, 10**15 - 1),
    st.sampled_from(["", "call from ", "(", '"', "tel:"]),
    st.sampled_from(["", " ", ",", ")"]),
)
def test_no_phone_number_survives(number: int, before: str, after: str) -> None:
    assert str(number)[:-2] not in redact(f"{before}+{number}{after}")


@given(st.text(max_size=300))
def test_redaction_takes_any_text(text: str) -> None:
    assert isinstance(redact(text), str)


@given(
    st.lists(st.sampled_from([*"aB_ +-:=/@.%19", *WORDS, *STRANGE, "4111 1111 1111 1111", "é", "٣"])).map(
        "".join
    )
)
def test_no_pattern_is_left_out_where_it_would_match(text: str) -> None:
    """Redaction asks first whether a pattern can match at all; the patterns themselves have the last word."""
    expected = _URI_PHONE.sub(lambda match: f"{match[1]}{_short(match[2])}", text)
    expected = _PHONE.sub(lambda match: f"+{_short(match[1])}", expected)
    for pattern, shown in ((_USERINFO, r"\1***@"), (_BEARER, r"\1 ***"), (_NAMED, r"\1***"), (_CARD, _hide_card)):
        expected = pattern.sub(shown, expected)
    assert redact(text) == expected


def test_known_secrets_and_secret_fields_are_hidden() -> None:
    def write() -> None:
        logger.info(
            "the key is hunter2-hunter2",
            extra={"auth_token": "abc", "deep": {"api_key": "x", "n": ["hunter2-hunter2"]}},
        )

    (line,) = lines_of(secrets=("hunter2-hunter2", "hunter2"), write=write)
    record = json.loads(line)
    assert record["message"] == "the key is ***"
    assert (record["auth_token"], record["deep"]) == ("***", {"api_key": "***", "n": ["***"]})


def test_long_texts_are_cut() -> None:
    (line,) = lines_of(write=lambda: logger.info("x" * 100_000))
    assert len(line) < 9000 and "(100000 characters)" in line


def test_an_unprintable_record_is_reported() -> None:
    class Bad:
        def __str__(self) -> str:
            raise RuntimeError

        __repr__ = __str__

    (line,) = lines_of(write=lambda: logger.info("%s", Bad()))
    assert json.loads(line)["message"] == "unprintable record of tests.logs"


def test_a_lone_surrogate_costs_one_character() -> None:
    (line,) = lines_of(write=lambda: logger.info("a\ud800b", extra={"text": "ñ\udfff"}))
    assert (json.loads(line)["message"], json.loads(line)["text"]) == ("a?b", "ñ?")


class StuckSink(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.may_write = threading.Event()

    def write(self, text: str) -> int:
        assert self.may_write.wait(30)
        return super().write(text)


def test_a_stuck_sink_costs_lines_and_no_time() -> None:
    sink = StuckSink()
    handler = Handler(sink, queue_lines=10)
    handler.start()
    began = time.monotonic()
    for n in range(1000):
        handler.emit(logging.makeLogRecord({"name": "x", "levelname": "INFO", "msg": f"line {n}"}))
    assert time.monotonic() - began < 5
    assert handler.dropped >= 1000 - 12  # the queue, and the line in the writer's hand
    sink.may_write.set()
    handler.stop()
    records = [json.loads(line) for line in sink.getvalue().splitlines()]
    lost = [r["lines"] for r in records if "dropped" in r["message"]]
    assert sum(lost) == handler.dropped
    assert len(records) - len(lost) + handler.dropped == 1000


def test_setup_replaces_what_was_there(root: logging.Logger) -> None:
    sink = io.StringIO()
    handler = setup(LogConfig(level="warning"), stream=sink)
    logger.setLevel(logging.NOTSET)
    logger.info("not shown")
    logger.warning("shown")
    handler.stop()
    assert root.handlers == [handler]
    assert [json.loads(line)["message"] for line in sink.getvalue().splitlines()] == ["shown"]


def test_what_no_line_shows_is_not_gathered(root: logging.Logger) -> None:
    handler = setup(LogConfig(), stream=io.StringIO())
    records: list[logging.LogRecord] = []
    handler.emit = records.append  # type: ignore[method-assign]
    logger.warning("here")
    handler.stop()
    (record,) = records
    assert record.lineno == 0 and record.thread is record.threadName is record.process is None
