"""Our adapters against OpenAI-compatible servers by others, so that no simulator of ours is the only judge of them."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from providers.base import (
    AudioChunk,
    ChatDone,
    ChatRequest,
    Final,
    Message,
    SpeechRequest,
    TextDelta,
    ToolCall,
    ToolSpec,
    TranscriberConfig,
)
from providers.errors import (
    ProviderError,
    ProviderFiltered,
    ProviderProtocolError,
    ProviderRejected,
    ProviderUnavailable,
)
from providers.groq.chat import GroqModel
from providers.openai.chat import AzureOpenAIModel, ChatCore, CompatibleModel, OpenAIModel
from providers.openai.options import (
    AzureOpenAiOptions,
    CompatibleOptions,
    GroqOptions,
    OpenAiOptions,
    TranscriptionOptions,
)
from providers.openai.speech import OpenAISynthesizer
from providers.openai.transcription import OpenAITranscriber
from tests.providers import conformance as suite
from tests.providers.openai_service import KEY, ask, run
from tests.support.third_party import Peer, aimock, aimock_path, mock_ai_api, mock_ai_api_path

pytestmark = pytest.mark.slow

PATHS = {"groq": "/openai/v1", "azure-v1": "/openai/v1", "azure-openai": "/openai/deployments/gpt-4o-mini"}
MODELS = ("openai", "groq", "azure-openai", "azure-v1", "compatible")
TEXT = "Buenos días. ¿Qué tal? We are open from nine to six."
TONE = (np.sin(np.arange(24_000) * 0.3) * 6000).astype("<i2").tobytes()  # 1.5 s at 16 kHz
SPEECH = (np.sin(np.arange(36_000) * 0.2) * 5000).astype("<i2").tobytes()  # 1.5 s at 24 kHz
FIND = ToolSpec("find", "Find free slots.", {"type": "object", "properties": {"day": {"type": "string"}}})
USAGE = {"prompt_tokens": 40, "completion_tokens": 9}


def refusal(said: str, status: int, **fields: Any) -> dict[str, Any]:
    return {
        "match": {"userMessage": said},
        "response": {"error": {"message": f"no {said}", **fields}, "status": status, "retryAfter": 7},
    }


def spoken(said: str, response: dict[str, Any]) -> dict[str, Any]:
    return {"match": {"endpoint": "speech", "userMessage": said}, "response": response}


def written(model: str, response: dict[str, Any]) -> dict[str, Any]:
    return {"match": {"endpoint": "transcription", "model": model}, "response": response}


FIXTURES: list[dict[str, Any]] = [
    {"match": {"endpoint": "chat", "userMessage": "hello"}, "response": {"content": TEXT, "usage": USAGE}},
    {"match": {"toolCallId": "call_1", "toolResultContains": "10:30"}, "response": {"content": "At half past ten."}},
    {
        "match": {"userMessage": "book"},
        "response": {
            "toolCalls": [
                {"id": "call_1", "name": "find", "arguments": '{"day":"jueves"}'},
                {"id": "call_2", "name": "find", "arguments": "{}"},
            ]
        },
    },
    {"match": {"userMessage": "cut"}, "response": {"content": TEXT}, "truncateAfterChunks": 4},
    refusal("speed", 429, type="requests", code="rate_limit_exceeded"),
    refusal("money", 429, type="insufficient_quota", code="insufficient_quota"),
    refusal("violence", 400, type="invalid_request_error", code="content_filter"),
    refusal("such model", 404, type="invalid_request_error", code="model_not_found"),
    refusal("service", 503, type="server_error"),
    spoken("Good", {"audio": base64.b64encode(SPEECH).decode(), "format": "pcm"}),
    spoken("Music", {"audio": base64.b64encode(b"ID3" + bytes(4000)).decode(), "format": "mp3"}),
    spoken("Later", {"error": {"message": "slow down", "code": "rate_limit_exceeded"}, "status": 429, "retryAfter": 7}),
    written("gpt-4o-mini-transcribe", {"transcription": {"text": "a tone, we are told"}}),
    written(
        "whisper-1",
        {
            "transcription": {
                "text": "a tone",
                "language": "english",
                "duration": 1.5,
                "segments": [{"id": 0, "start": 0.0, "end": 1.5, "text": " a tone"}],
            }
        },
    ),
    written("broken", {"error": {"message": "no GPU", "type": "server_error"}, "status": 503}),
]


@pytest.fixture(scope="module")
def program() -> Path:
    return aimock_path()


@pytest.fixture(scope="module")
def package() -> Path:
    return mock_ai_api_path()


def model(name: str, peer: Peer, key: str = KEY, wanted: str = "gpt-4o-mini") -> ChatCore:
    if name == "openai":
        return OpenAIModel(OpenAiOptions(key=key, base_url=f"{peer.url}/v1", model=wanted))
    if name == "groq":
        return GroqModel(GroqOptions(key=key, base_url=peer.url, model=wanted))
    if name == "compatible":
        return CompatibleModel(CompatibleOptions(key=key, base_url=f"{peer.url}/v1", model=wanted))
    surface: Any = "v1" if name == "azure-v1" else "classic"
    return AzureOpenAIModel(AzureOpenAiOptions(key=key, endpoint=peer.url, deployment=wanted, surface=surface))


@asynccontextmanager
async def closing(adapter: Any) -> AsyncIterator[Any]:
    try:
        yield adapter
    finally:
        await adapter.aclose()


async def heard(adapter: ChatCore, request: ChatRequest) -> tuple[str, list[ToolCall], ChatDone]:
    text, calls, done = "", [], None
    async for event in adapter.stream(request):
        match event:
            case TextDelta(part):
                text += part
            case ToolCall():
                calls.append(event)
            case ChatDone():
                done = event
    assert done is not None
    return text, calls, done


async def journal(peer: Peer) -> list[Any]:
    async with httpx.AsyncClient(trust_env=False) as http:
        return (await http.get(f"{peer.url}/__aimock/journal")).json()  # type: ignore[no-any-return]


async def transcript(adapter: OpenAITranscriber, config: TranscriberConfig) -> tuple[Final, list[str]]:
    stream = await adapter.open(config)
    stream.begin_nowait(1, 1000)
    stream.feed_nowait(TONE)
    stream.commit_nowait(1)
    interims = []
    try:
        async for event in stream:
            if isinstance(event, Final):
                return event, interims
            interims.append(event.text)
    finally:
        await stream.aclose()
    raise AssertionError("no final")


def transcriber(peer: Peer, wanted: str, **how: Any) -> OpenAITranscriber:
    options = OpenAiOptions(key=KEY, base_url=f"{peer.url}/v1", model=wanted)
    return OpenAITranscriber(options, TranscriptionOptions(**how))


# ── aimock ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_chat_of_every_service(program: Path, tmp_path: Path) -> None:
    """Text, usage, tool calls and their results; the journal says what each adapter sent."""

    async def talk(name: str, peer: Peer) -> None:
        async with closing(model(name, peer)) as one:
            pieces = [event async for event in one.stream(ask("hello")) if isinstance(event, TextDelta)]
            assert len(pieces) > 5, name
            text, calls, done = await heard(one, ask("hello"))
            assert (text, calls, done.reason) == (TEXT, [], "stop"), name
            assert (done.prompt_tokens, done.completion_tokens) == (40, 9), name
            text, calls, done = await heard(one, ask("book", tools=(FIND,)))
            assert (text, done.reason) == ("", "tool_calls"), name
            assert calls == [ToolCall("call_1", "find", '{"day":"jueves"}'), ToolCall("call_2", "find", "{}")], name
            asked = (Message("user", "book"), Message("assistant", "", tuple(calls[:1])))
            answered = (*asked, Message("tool", '["10:30"]', tool_call_id="call_1"))
            assert (await heard(one, ChatRequest(messages=answered, tools=(FIND,))))[0] == "At half past ten.", name

    async def main() -> None:
        async with aimock(program, tmp_path, FIXTURES) as peer:
            for name in MODELS:
                await talk(name, peer)
            seen = await journal(peer)
            assert len(seen) == 4 * len(MODELS)
            for number, name in enumerate(MODELS):
                first, _, _, last = seen[4 * number : 4 * number + 4]
                headers, body = first["headers"], first["body"]
                is_classic = name == "azure-openai"
                assert ("api-key" in headers, "authorization" in headers) == (is_classic, not is_classic), name
                assert first["path"].startswith(f"{PATHS.get(name, '/v1')}/chat/completions"), name
                assert ("?api-version=" in first["path"]) == is_classic
                assert body["stream"] is True and body["stream_options"]["include_usage"] is True, name
                assert last["body"]["messages"][-1] == {
                    "role": "tool", "content": '["10:30"]', "tool_call_id": "call_1"
                }  # fmt: skip
            for name in MODELS:
                async with closing(model(name, peer)) as one:
                    one.attach_nowait()
                    await suite.cancels_within_a_frame(one, ask("hello"))
                    assert await heard(one, ask("hello")), "a cancelled answer outlived itself"

    run(main)


def test_what_chat_is_refused_is_understood(program: Path, tmp_path: Path) -> None:
    async def failure(one: ChatCore, said: str) -> ProviderError:
        with pytest.raises(ProviderError) as caught:
            await heard(one, ask(said))
        return caught.value

    async def main() -> None:
        async with aimock(program, tmp_path, FIXTURES, keys=[KEY]) as peer:
            for name in MODELS:
                async with closing(model(name, peer)) as one:
                    busy = await failure(one, "speed")
                    assert isinstance(busy, ProviderRejected) and (busy.status, busy.retryable) == (429, True), name
                    assert busy.retry_after_ms == 7000 and one._link.limits.newest is not None, name
                    poor = await failure(one, "money")
                    assert isinstance(poor, ProviderRejected) and (poor.status, poor.retryable) == (429, False), name
                    assert isinstance(await failure(one, "violence"), ProviderFiltered), name
                    unknown = await failure(one, "such model")
                    assert isinstance(unknown, ProviderRejected) and unknown.status == 404, name
                    assert isinstance(await failure(one, "service"), ProviderUnavailable), name
                    assert isinstance(await failure(one, "cut"), ProviderUnavailable), name
                    # None of it has cost the adapter its connections.
                    assert (await heard(one, ask("hello")))[0] == TEXT, name
                async with closing(model(name, peer, key="another key")) as one:
                    refused = await failure(one, "hello")
                    assert isinstance(refused, ProviderRejected) and refused.status == 401, name

    run(main)


def test_speech_comes_from_aimock(program: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            aimock(program, tmp_path, FIXTURES) as peer,
            closing(
                OpenAISynthesizer(OpenAiOptions(key=KEY, base_url=f"{peer.url}/v1", model="gpt-4o-mini-tts"))
            ) as one,
        ):
            chunks = [event async for event in one.stream(SpeechRequest(text="Good day, how can I help?"))]
            assert all(isinstance(chunk, AudioChunk) and chunk.audio_format.rate_hz == 24_000 for chunk in chunks)
            assert b"".join(chunk.audio for chunk in chunks) == SPEECH
            [seen] = await journal(peer)
            assert (seen["path"], seen["body"]["model"]) == ("/v1/audio/speech", "gpt-4o-mini-tts")
            with pytest.raises(ProviderProtocolError, match="expected samples, got audio/mpeg"):
                await anext(one.stream(SpeechRequest(text="Music, please.")))
            with pytest.raises(ProviderRejected) as busy:
                await anext(one.stream(SpeechRequest(text="Later, perhaps.")))
            assert (busy.value.status, busy.value.retry_after_ms) == (429, 7000)

    run(main)


def test_transcription_comes_from_aimock(program: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with aimock(program, tmp_path, FIXTURES) as peer:
            async with closing(transcriber(peer, "gpt-4o-mini-transcribe")) as one:
                final, interims = await transcript(one, TranscriberConfig(language="es-ES", phrases=("Dr. Muñoz",)))
                assert (final.text, final.start_ms, final.end_ms) == ("a tone, we are told", 1000, 2500)
                assert not interims
                whole, _ = await transcript(one, TranscriberConfig(model="whisper-1"))
                assert whole.text == "a tone"
                with pytest.raises(ProviderUnavailable):
                    await transcript(one, TranscriberConfig(model="broken"))
            async with closing(transcriber(peer, "gpt-4o-mini-transcribe", stream=True)) as one:
                final, interims = await transcript(one, TranscriberConfig())
                # Which of them is read depends on who is quicker; each is a beginning of the whole.
                assert final.text == "a tone, we are told"
                assert all(final.text.startswith(part) for part in interims)
            seen = [(one["path"], one["body"]["model"], one["response"]["status"]) for one in await journal(peer)]
            path = "/v1/audio/transcriptions"
            good = (path, "gpt-4o-mini-transcribe", 200)
            # What failed was sent once more.
            assert seen == [good, (path, "whisper-1", 200), *[(path, "broken", 503)] * 2, good]

    run(main)


# ── mock-ai-api ───────────────────────────────────────────────────────────────────────────────────────────────


def test_mock_ai_api_says_the_same(package: Path) -> None:
    """A second author's reading of the protocol: usage beside the finish, tool calls in pieces, errors."""

    async def main() -> None:
        async with mock_ai_api(package) as peer, closing(model("openai", peer)) as one:
            text, calls, done = await heard(one, ask("hello", model="gpt-4.1:mock-text"))
            assert text and not calls and done.reason == "stop" and done.completion_tokens > 0
            text, calls, done = await heard(one, ask("hello", model="gpt-4.1:mock-tool-stream", tools=(FIND,)))
            assert (len(calls), done.reason) == (1, "tool_calls")
            assert calls[0].name and calls[0].arguments.startswith("{") and calls[0].arguments.endswith("}")
            for status, kind in ((400, ProviderRejected), (401, ProviderRejected), (429, ProviderRejected),
                                 (500, ProviderUnavailable), (503, ProviderUnavailable)):  # fmt: skip
                with pytest.raises(kind) as caught:
                    await heard(one, ask("hello", model=f"gpt-4.1:mock-{status}"))
                assert getattr(caught.value, "status", status) == status
            assert (await one.check("gpt-4.1")).is_reached

    run(main)
