"""The pure parts under the adapters of OpenAI's protocol: events, chunks, headers, WAV, transcripts."""

from __future__ import annotations

import io
import itertools
import json
import math
import wave

import numpy as np
import pytest
from azure.cognitiveservices.speech import CancellationErrorCode
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.azure.failure import failure
from providers.base import ChatDone, ChatEvent, TextDelta, ToolCall
from providers.errors import ProviderError, ProviderProtocolError, ProviderRejected, without_quotes
from providers.openai.answer import MAX_ARGUMENT_CHARS, MAX_CALLS, Answer
from providers.openai.failure import refused, said
from providers.openai.heard import Heard, loudest_dbfs, read_transcript
from providers.openai.limits import duration_ms, retry_after_ms
from providers.openai.speech import pieces
from providers.openai.sse import MAX_EVENT_BYTES, SseDecoder
from providers.openai.transcription import StreamedTranscript
from providers.openai.wave import SampleReader, wave_file

# ── events of a stream ────────────────────────────────────────────────────────────────────────────────────────

EVENTS = [b'{"a":"\xc3\xbc"}', b"x", b"[DONE]"]
STREAM = b': hi\n\ndata: {"a":"\xc3\xbc"}\r\n\r\nevent: e\nid: 3\ndata:x\n\n\n: bye\n\ndata: [DONE]\n\n'


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
@settings(max_examples=200, deadline=None)
def test_events_do_not_depend_on_the_cuts(cuts: list[int]) -> None:
    decoder = SseDecoder()
    bounds = [0, *sorted(cuts), len(STREAM)]
    found = [data for at, to in itertools.pairwise(bounds) for data in decoder.feed(STREAM[at:to])]
    assert found == EVENTS


def test_events_of_other_manners() -> None:
    assert list(SseDecoder().feed(b"data: a\rdata: b\r\rdata: c\r\r")) == [b"a\nb", b"c"]
    decoder = SseDecoder()
    assert list(decoder.feed(b"data: a")) == [] and list(decoder.end()) == [b"a"]
    assert list(SseDecoder().feed(b"\xff\xfe\n\nretry\n\n")) == []


@pytest.mark.parametrize("line", [b"data: " + b"x" * 4096, b"data: x\n" * 512])
def test_an_event_without_end_is_an_error(line: bytes) -> None:
    decoder = SseDecoder()
    with pytest.raises(ProviderProtocolError):
        for _ in range(MAX_EVENT_BYTES // 256):
            list(decoder.feed(line))


# ── chunks of an answer ───────────────────────────────────────────────────────────────────────────────────────

ARGUMENTS = ('{"day": "jueves, mañana 😀", "n": [1, 2]}', "{}")


def chunk(delta: object, finish: str | None = None, **more: object) -> bytes:
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]} | more).encode()


def events_of(*chunks: bytes) -> list[ChatEvent]:
    answer = Answer("x")
    return [event for one in chunks for event in answer.feed(one)] + list(answer.finish())


def fragment(index: int | None, arguments: object, call_id: str | None = None, name: str | None = None) -> dict:
    call: dict = {"function": {"arguments": arguments} | ({"name": name} if name else {})}
    return call | ({"id": call_id} if call_id else {}) | ({"index": index} if index is not None else {})


@st.composite
def told(draw: st.DrawFn) -> list[bytes]:
    """Two calls, cut anywhere, their fragments one or several a chunk, indexes and ids as servers repeat them."""
    repeat_ids, with_index = draw(st.booleans()), draw(st.booleans())
    mixed = with_index and draw(st.booleans())
    parts: list[list[dict]] = []
    for index, arguments in enumerate(ARGUMENTS):
        cuts = sorted(draw(st.lists(st.integers(0, len(arguments)), max_size=6)))
        bounds = [0, *cuts, len(arguments)]
        texts = [arguments[at:to] for at, to in itertools.pairwise(bounds)]
        named = draw(st.booleans())
        first = fragment(index if with_index else None, "" if named else texts.pop(0), f"id{index}", f"tool{index}")
        rest = [fragment(index if with_index else None, text, f"id{index}" if repeat_ids else None) for text in texts]
        parts.append([first, *rest])
    if mixed:
        ordered = [parts[0].pop(0), parts[1].pop(0)]
        while parts[0] or parts[1]:
            ordered.append(draw(st.sampled_from([part for part in parts if part])).pop(0))
    else:
        ordered = parts[0] + parts[1]
    chunks = []
    while ordered:
        count = draw(st.integers(1, 3))
        beside = draw(st.sampled_from([{}, {"content": ""}, {"content": None, "role": "assistant"}]))
        chunks.append(chunk(beside | {"tool_calls": ordered[:count]}))
        ordered = ordered[count:]
    finish = draw(st.sampled_from(["stop", "tool_calls"]))
    return [*chunks, chunk({}, finish), *draw(st.sampled_from([[], [chunk({}, finish)]]))]


@given(told())
@settings(max_examples=300, deadline=None)
def test_any_chunking_of_calls_gives_the_same_calls(chunks: list[bytes]) -> None:
    assert events_of(*chunks) == [
        ToolCall("id0", "tool0", ARGUMENTS[0]), ToolCall("id1", "tool1", ARGUMENTS[1]),
        ChatDone("tool_calls", provider="x"),
    ]  # fmt: skip


def test_calls_as_some_servers_tell_them() -> None:
    whole = [{"function": {"name": "a", "arguments": {"n": 1}}}, {"index": 0, "id": "b", "function": {"name": "b"}}]
    same_index = [fragment(0, "{}", "c", "c"), fragment(0, "[]", "d", "d")]
    events = events_of(chunk({"tool_calls": whole}), chunk({"tool_calls": same_index}, "stop"))
    assert events[:-1] == [
        ToolCall("call_0", "a", '{"n":1}'), ToolCall("b", "b", "{}"), ToolCall("c", "c", "{}"),
        ToolCall("d", "d", "[]"),
    ]  # fmt: skip


def test_chunks_without_what_they_should_have() -> None:
    events = events_of(
        b'{"choices":[],"prompt_filter_results":[]}', b'{"choices":null}', b"{}", b'{"choices":[{}]}',
        b'{"choices":[{"index":0,"finish_reason":null,"content_filter_offsets":{}}]}',
        b'{"choices":[{"index":1,"delta":{"content":"another"}}]}', chunk({"content": "Yes"}), chunk(None, "length"),
        b'{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":-1,"prompt_tokens_details":null}}',
    )  # fmt: skip
    assert events == [TextDelta("Yes"), ChatDone("length", 7, 0, 0, "x")]


KEYS = st.sampled_from([
    "choices", "delta", "index", "tool_calls", "error", "function", "arguments", "name", "id", "content", "usage",
    "x_groq", "finish_reason",
])  # fmt: skip
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.binary(max_size=40) | ANY_JSON.map(lambda one: json.dumps(one).encode()))
@settings(max_examples=300, deadline=None)
def test_anything_else_is_an_error_of_ours(data: bytes) -> None:
    answer = Answer("x")
    try:
        list(answer.feed(data))
        list(answer.finish())
    except ProviderError:
        pass


@given(st.lists(st.integers(1, 12), min_size=1, max_size=20), st.sampled_from(["", " ", "\n"]))
@settings(max_examples=200, deadline=None)
def test_reasoning_in_the_text_is_dropped_however_it_is_cut(sizes: list[int], before: str) -> None:
    for text, wanted in (
        (f"{before}<think>a <b> </thin x</think>\n\n Yes <think> no", "Yes <think> no"),
        (f"{before}<thin ice", f"{before}<thin ice"),
        (f"{before}<think>never closed", ""),
        (f"{before}No.", f"{before}No."),
    ):
        left, chunks = text, []
        while left:
            for size in sizes:
                chunks.append(chunk({"content": left[:size]}))
                left = left[size:]
        events = events_of(*chunks, chunk({}, "stop"))
        assert "".join(one.text for one in events if isinstance(one, TextDelta)) == wanted


def test_calls_are_bounded() -> None:
    answer = Answer("x")
    with pytest.raises(ProviderProtocolError, match="arguments"):
        for _ in range(MAX_ARGUMENT_CHARS // 1000 + 1):
            list(answer.feed(chunk({"tool_calls": [fragment(0, "x" * 1000)]})))
    answer = Answer("x")
    with pytest.raises(ProviderProtocolError, match="tool calls"):
        for index in range(MAX_CALLS + 1):
            list(answer.feed(chunk({"tool_calls": [fragment(index, "{}", str(index), "a")]})))
    with pytest.raises(ProviderProtocolError, match="without a name"):
        events_of(chunk({"tool_calls": [fragment(0, "{}", "a")]}, "tool_calls"))


def test_errors_in_the_stream() -> None:
    for error, retryable, code in (
        ({"code": "rate_limit_exceeded"}, True, "rate_limit_exceeded"),
        ({"type": "insufficient_quota"}, False, "insufficient_quota"),
        ({"code": "content_filter"}, False, "content_filter"),
        ({"code": "tool_use_failed", "failed_generation": "secret words"}, True, "tool_use_failed"),
    ):
        with pytest.raises(ProviderRejected) as raised:
            events_of(json.dumps({"error": error}).encode())
        assert (raised.value.retryable, raised.value.code) == (retryable, code)
        assert "secret words" not in str(raised.value)


# ── headers and messages ──────────────────────────────────────────────────────────────────────────────────────


def test_durations() -> None:
    for text, ms in (
        ("6m0s", 360_000), ("350ms", 350), ("2m59.56s", 179_560), ("7.66s", 7660), ("1h2m3s", 3_723_000),
        ("12", 12_000), ("0s", 0), ("1s ", 1000), ("", None),
        ("soon", None), ("1s2", None), ("-1s", None), (None, None),
    ):  # fmt: skip
        assert duration_ms(text) == ms, text


def test_when_to_come_back() -> None:
    assert retry_after_ms({"retry-after-ms": "350.5", "retry-after": "7"}) in (350, 351)
    assert retry_after_ms({"retry-after": "1.5"}) == 1500
    assert retry_after_ms({"retry-after": "Fri, 27 Nov 1998 10:00:00 GMT"}) == 0
    assert retry_after_ms({"retry-after": "999999999"}) == 86_400_000
    for junk in ("", "inf", "nan", "-5", "tomorrow", "Fri, 99 Nov", "9" * 400):
        assert retry_after_ms({"retry-after": junk, "retry-after-ms": "x"}) is None, junk


def test_no_secret_gets_into_a_message() -> None:
    key = "sk-proj-AbCdEf0123456789AbCdEf0123456789"
    for status in (400, 401, 429, 500):
        error = refused(status, {"message": f"Incorrect key {key}.\nSee gsk_abcdefghijklmnop"}, {}, provider="x")
        assert "AbCdEf" not in str(error) and "abcdefgh" not in str(error) and "\n" not in str(error)
    assert len(said("word " * 1000)) <= 200
    odd = refused(404, "<html>", {"x-request-id": "req_1\r\nx"}, provider="x")
    assert "(request req_1x)" in str(odd)


def test_what_a_service_quotes_of_the_conversation_gets_into_no_message() -> None:
    for quoted in ("'I can't come on Friday'", '"my name is Ann"', "`Mill Street 4`", "'cut off in the middle"):
        error = refused(400, {"message": f"Unsupported value: 'max_tokens' near {quoted}"}, {}, provider="x")
        assert "'max_tokens' near" in str(error) and not any(word in str(error) for word in quoted[1:].split())
        azure = failure(CancellationErrorCode.BadRequest, f"WebSocket closed: near {quoted}", "azure", 0)
        assert "closed: near" in str(azure) and not any(word in str(azure) for word in quoted[1:].split())
    assert without_quotes("don't use 'a' or can't") == "don't use 'a' or can't"


# ── audio ─────────────────────────────────────────────────────────────────────────────────────────────────────

SAMPLES = bytes(range(1, 201))


@given(st.lists(st.integers(0, 260), max_size=8), st.sampled_from(["raw", "wave", "endless", "extra"]))
@settings(max_examples=200, deadline=None)
def test_samples_do_not_depend_on_the_cuts(cuts: list[int], kind: str) -> None:
    data = SAMPLES if kind == "raw" else wave_file(SAMPLES, 16_000)
    if kind == "endless":
        data = data[:4] + b"\xff" * 4 + data[8:40] + b"\xff" * 4 + data[44:]
    elif kind == "extra":
        data = data[:36] + b"LIST\x03\x00\x00\x00abc\x00" + data[36:] + b"LISTxxxxtrailer"
    reader = SampleReader(24_000)
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = [reader.feed(data[at:to]) for at, to in itertools.pairwise(bounds)]
    assert all(len(part) % 2 == 0 for part in parts)
    assert b"".join(parts) + reader.end() == SAMPLES
    assert reader.rate_hz == (24_000 if kind == "raw" else 16_000)


def test_samples_of_another_kind() -> None:
    stereo = bytearray(wave_file(SAMPLES, 16_000))
    stereo[22] = 2
    with pytest.raises(ProviderProtocolError, match="2 x 16"):
        SampleReader(24_000).feed(bytes(stereo))
    reader = SampleReader(24_000)
    assert reader.feed(b"RI") == b"" and reader.end() == b"RI"
    reader = SampleReader(24_000)
    assert reader.feed(b"R\x01\x02") == b"R\x01" and reader.feed(b"\x03") == b"\x02\x03"
    with wave.open(io.BytesIO(wave_file(SAMPLES, 8000))) as file:
        assert (file.getframerate(), file.readframes(200)) == (8000, SAMPLES)


def test_texts_in_pieces() -> None:
    text = "One two three. Four five six, seven eight nine? Ten."
    assert list(pieces(text, 1000)) == [text]
    assert list(pieces(text, 20)) == ["One two three.", "Four five six,", "seven eight nine?", "Ten."]
    assert list(pieces("x" * 45, 20)) == ["x" * 20, "x" * 20, "x" * 5]
    assert list(pieces(" ... ", 20)) == []


# ── transcripts ───────────────────────────────────────────────────────────────────────────────────────────────


def segment(text: str, **figures: float) -> dict:
    return {"text": text, "start": 0.0, "end": 1.0, "avg_logprob": -0.2, "no_speech_prob": 0.01} | figures


def test_what_is_invented_for_silence_is_not_heard() -> None:
    good = segment(" I want to book.")
    for bad in (
        segment("Thanks for watching!", no_speech_prob=0.5),
        segment(" Subtítulos realizados por la comunidad de Amara.org", no_speech_prob=0.4),
        segment("la la la", no_speech_prob=0.9, avg_logprob=-1.5),
        segment("so so so so so so", compression_ratio=9.0, avg_logprob=-0.9),
    ):
        assert read_transcript({"text": "x", "segments": [bad]}) == Heard("")
        both = read_transcript({"text": "x", "segments": [good, bad]})
        assert both.text == "I want to book." and both.confidence == pytest.approx(math.exp(-0.2))
    assert read_transcript({"text": "x", "segments": [segment("Thank you.", no_speech_prob=0.1)]}).text == "Thank you."


def test_transcripts_of_other_shapes() -> None:
    assert read_transcript({"text": " Yes. "}) == Heard("Yes.")
    sure = read_transcript({"text": "Yes", "logprobs": [{"token": "Yes", "logprob": -0.1}, {"logprob": -0.3}]})
    assert sure.confidence == pytest.approx(math.exp(-0.2))
    long = {"text": "x", "segments": [segment("x" * 10_000)] * 2}
    for bad in (None, [], {}, {"text": 3}, {"text": "x" * 20_000}, long):
        with pytest.raises(ProviderProtocolError):
            read_transcript(bad)


def test_a_transcript_that_is_streamed() -> None:
    shown: list[str] = []
    transcript = StreamedTranscript(shown.append)
    for event in (
        {"type": "transcript.text.delta", "delta": "Good "}, {"type": "transcript.text.delta", "delta": "morning."},
        {"type": "something.new"},
        {"type": "transcript.text.done", "text": "Good morning.", "logprobs": [{"logprob": 0.0}]},
    ):  # fmt: skip
        transcript.feed(json.dumps(event).encode())
    assert shown == ["Good", "Good morning."] and transcript.finish() == Heard("Good morning.", 1.0)
    with pytest.raises(ProviderProtocolError):
        StreamedTranscript(shown.append).finish()
    with pytest.raises(ProviderProtocolError):
        long = {"type": "transcript.text.done", "text": "x" * 20_000}
        StreamedTranscript(shown.append).feed(json.dumps(long).encode())


def test_levels() -> None:
    tone = (np.sin(np.arange(16_000) * 0.3) * 3276.8).astype(np.int16)
    assert loudest_dbfs(tone.tobytes(), 16_000) == pytest.approx(-23.0, abs=0.1)
    assert loudest_dbfs(np.concatenate([np.zeros(50_000, np.int16), tone]).tobytes(), 16_000) > -24
    assert loudest_dbfs(bytes(3200), 16_000) == -math.inf and loudest_dbfs(b"", 16_000) == -math.inf
    assert -24 < loudest_dbfs(tone[:100].tobytes(), 16_000) < -22
