"""What the simulators claim of the SDKs, held against somebody else's server: the same client code, the same words."""

from __future__ import annotations

import asyncio
import shutil
import wave
from pathlib import Path
from typing import Any

import groq
import openai
import pytest

from bench.sim.openai import Answer, FixtureBrain, Flavour, OpenAiSim, ToolUse
from tests.bench.openai_client import API_VERSION, talk, tool
from tests.support import third_party
from tests.support.third_party import aimock, aimock_path

TEXT = "Buenos días. ¿Qué tal? We are open from nine to six."
FIXTURES: list[dict[str, Any]] = [
    {"match": {"userMessage": "hello"}, "response": {"content": TEXT}},
    {
        "match": {"userMessage": "book"},
        "response": {
            "toolCalls": [{"name": "find", "arguments": '{"day":"jueves"}'}, {"name": "slots", "arguments": "{}"}]
        },
    },
    {"match": {"endpoint": "transcription"}, "response": {"transcription": {"text": "a tone"}}},
]
OURS = FixtureBrain({"hello": TEXT, "book": Answer(calls=(ToolUse("find", '{"day":"jueves"}'), ToolUse("slots")))})
CALLS = {0: ["find", '{"day":"jueves"}'], 1: ["slots", "{}"]}
TOOLS = [tool("find"), tool("slots")]


@pytest.fixture(scope="module")
def program() -> Path:
    return aimock_path()


def sdk(flavour: Flavour, url: str) -> Any:
    options: dict[str, Any] = {"api_key": "sim-key", "max_retries": 0, "timeout": 5}
    if flavour is Flavour.GROQ:
        return groq.AsyncGroq(base_url=url, **options)
    if flavour is Flavour.AZURE:
        return openai.AsyncAzureOpenAI(azure_endpoint=url, api_version=API_VERSION, **options)
    return openai.AsyncOpenAI(base_url=f"{url}/v1", **options)


@pytest.mark.slow
@pytest.mark.parametrize("flavour", list(Flavour))
def test_a_client_hears_the_same_from_aimock_and_from_the_simulator(
    flavour: Flavour, program: Path, tmp_path: Path
) -> None:
    async def all_of(sim: OpenAiSim, url: str) -> list[Any]:
        async with sdk(flavour, url) as one:
            options = {"extra_body": {"stream_options": {"include_usage": True}}}
            text = await talk(one, sim, **options)
            book = await talk(one, sim, messages=[{"role": "user", "content": "book"}], tools=TOOLS, **options)
            assert len(text.chunks) > 5
            assert text.usage.total_tokens > 0
            return [text.text, text.finish, text.roles, book.calls, book.finish, len(set(book.ids))]

    async def main() -> None:
        async with asyncio.timeout(30), OpenAiSim(flavour, brain=OURS) as sim:
            async with aimock(program, tmp_path, FIXTURES) as peer:
                theirs = await all_of(sim, peer.url)
            assert theirs == await all_of(sim, sim.url)
            assert theirs == [TEXT, ["stop"], ["assistant"], CALLS, ["tool_calls"], 2]

    asyncio.run(main())


@pytest.mark.slow
def test_a_transcription_of_aimock(program: Path, tmp_path: Path) -> None:
    async def main() -> None:
        with wave.open(str(tmp_path / "a.wav"), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes(bytes(16000))
        async with asyncio.timeout(30), aimock(program, tmp_path, FIXTURES) as peer:
            async with openai.AsyncOpenAI(api_key="k", base_url=f"{peer.url}/v1", max_retries=0) as one:
                got = await one.audio.transcriptions.create(model="whisper-1", file=tmp_path / "a.wav")
            assert got.text == "a tone"

    asyncio.run(main())


def test_a_missing_npm_is_skipped_by_name_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"aimock@1\.43\.0: npm and node are not there"):
        aimock_path()
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match=r"aimock@1\.43\.0: npm and node are not there"):
        aimock_path()


@pytest.mark.parametrize(("view", "outcome"), [(1, pytest.skip.Exception), (0, pytest.fail.Exception)])
def test_what_the_registry_has_is_not_skipped(
    view: int, outcome: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An npm that cannot install: skipped where no registry answers, a failure where one has the package."""
    monkeypatch.setattr(third_party, "CACHE", tmp_path / "cache")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CI", raising=False)
    for name in ("npm", "node"):
        script = tmp_path / name
        script.write_text(f'#!/bin/sh\necho broken >&2\n[ "$1" = view ] && exit {view}\nexit 1\n')
        script.chmod(0o755)
    with pytest.raises(outcome, match=r"aimock@1\.43\.0: npm could not install it: broken"):
        aimock_path()
