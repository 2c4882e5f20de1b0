"""One call through Azure, Groq and OpenAI by their SDKs, while one provider after the other dies in mid-call.

The server is a process and so are the simulators; each fault is ordered when the caller begins the turn that it is for.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest
import uvloop
import yaml

from bench.demo import cloud
from bench.demo.script import PlannedCall
from bench.load.server_process import PUBLIC_URL, ServerProcess
from bench.sim.caller import Say, ScriptedCaller
from bench.sim.process import ProviderProcesses
from bench.sim.sound import FRAME_MS, is_audible
from bench.sim.twilio import Account, Exchange
from bench.sim.voice import pico_clip
from server.call.replay import steps

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(180)]

NUMBER = "+15550100"
DEAD_AIR_MS = 5000
AROUND_MS = 500  # pre-roll and hangover that are sent with an utterance
ERROR_WORDS = re.compile(r"error|exception|traceback|status|timeout|refused|reset|http|\b[45]\d\d\b", re.I)
HEARING = "azure hearing breaks off"
# What a turn asks, a word of the right answer, and the fault that strikes while it is answered.
TURNS: list[tuple[str, str, str]] = [
    ("Hello, can you tell me when you are open?", "nine", ""),
    ("Sorry, how much is a cleaning?", "90", "groq refuses"),
    ("Where can I find you?", "Mill Street", "groq breaks off"),
    ("How much is a filling?", "140", "azure speech breaks off"),
    ("Is there somewhere to park?", "Dock Lane", HEARING),
    ("When are you open on Saturday?", "ten", "groq is gone"),
]


async def order(sims: ProviderProcesses, fault: str) -> None:
    match fault:
        case "groq refuses":
            await sims.fault_chat("groq", kind="overloaded")
        case "groq breaks off":
            await sims.fault_chat("groq", kind="stream_reset", after_tokens=6)
        case "azure speech breaks off":
            await sims.fault_azure(kind="cut", on="tts", after_ms=300)
        case "groq is gone":
            await sims.fault_chat("groq", kind="close", times=None)


async def follow(caller: ScriptedCaller, sims: ProviderProcesses, failed: list[str]) -> None:
    """Order the fault of each turn as the caller begins to speak."""
    for at, (_, _, fault) in enumerate(TURNS):
        while len(caller.records) <= at:
            await asyncio.sleep(0.02)
        if fault and fault != HEARING:
            await order(sims, fault)
        if fault:
            failed.append(fault)


def longest_silence_ms(said: list[bytes], heard: list[bytes]) -> int:
    """In which neither side is heard on the line."""
    longest = quiet = 0
    for frames in zip(said, heard, strict=True):
        quiet = 0 if any(map(is_audible, frames)) else quiet + FRAME_MS
        longest = max(longest, quiet)
    return longest


SPOKEN = {"LOG_TRANSCRIPTS": "1"}

Body = Callable[[ServerProcess, Exchange, ProviderProcesses], Awaitable[None]]


def serve(
    tmp_path: Path, calls: list[PlannedCall], body: Body, *, logs: Mapping[str, str] = SPOKEN, **limits: str
) -> None:
    """`limits` are settings of every agent, `logs` variables."""

    async def main() -> None:
        account = Account()
        book = cloud.write_book(calls, tmp_path / "book.json")
        agents = cloud.write_agents(tmp_path / "agents")
        for path in agents.glob("*.yaml"):
            agent = yaml.safe_load(path.read_text())
            agent["limits"] |= limits
            path.write_text(yaml.safe_dump(agent, allow_unicode=True))
        async with (
            ProviderProcesses(book=book, profile="fast") as sims,
            Exchange(public_url=PUBLIC_URL, local_url="", account=account) as exchange,
        ):
            env = {
                "PUBLIC_URL": PUBLIC_URL,
                "TWILIO_ACCOUNT_SID": account.account_sid,
                "TWILIO_AUTH_TOKEN": account.auth_token,
                "TWILIO_API_URL": exchange.rest_url,
                "AGENTS_DIR": str(agents),
                **sims.env,
                **logs,
            }
            async with ServerProcess(env, log=tmp_path / "server.log", data_dir=tmp_path / "data") as server:
                exchange.local_url = server.url
                await body(server, exchange, sims)

    uvloop.run(main())


def sample(metrics: str, name: str, **labels: str) -> float:
    """The sum of all series of `name` that have these labels."""
    total = 0.0
    for line in metrics.splitlines():
        if line.startswith(f"{name}{{") and all(f'{key}="{value}"' in line for key, value in labels.items()):
            total += float(line.rsplit(" ", 1)[1])
    return total


def test_a_call_survives_the_death_of_each_of_its_providers(tmp_path: Path) -> None:
    turns = [Say(clip=pico_clip(text, rate_percent=80), expect=(word,)) for text, word, _ in TURNS]
    failed: list[str] = []

    async def body(server: ServerProcess, exchange: Exchange, sims: ProviderProcesses) -> None:
        caller = ScriptedCaller(turns, quiet_ms=900)
        # Recognition is one turn for the whole call: it is cut at a place in its audio, amid this utterance.
        before_ms = sum(turn.clip.duration_ms + AROUND_MS for turn in turns[:4] if turn.clip)
        await sims.fault_azure(kind="cut", on="stt", after_ms=before_ms + 900)
        async with asyncio.TaskGroup() as group:
            following = group.create_task(follow(caller, sims, failed))
            call = await exchange.call(caller, from_="+15552000007", to=NUMBER, record=True)
            following.cancel()
        lines, _ = server.log_lines()
        said = [one for one in lines if one.get("event") == "segment"]
        agent = [one["text"] for one in said if one["speaker"] == "agent"]
        heard = [one["text"] for one in said if one["speaker"] == "caller"]
        assert call.ended_by == "caller" and len(call.streams) == 1
        assert [record.reply_latency_ms is not None for record in caller.records] == [True] * len(TURNS)
        for record in caller.records:
            assert record.reply_latency_ms is not None and record.reply_latency_ms < DEAD_AIR_MS
        # Also inside an answer that broke off: the latency of a reply ends with its first sound.
        (line,) = call.streams
        assert line.said and line.heard and longest_silence_ms(line.said, line.heard) < DEAD_AIR_MS
        assert heard == [text for text, _, _ in TURNS], "a word was lost or doubled"
        (begun,) = [one for one in lines if one.get("event") == "listening"]
        assert begun["max_calls"] == 40 and begun["message"].endswith(", at most 40 calls"), "Azure Speech is there"
        assert not [one for one in lines if one.get("event") == "max_calls_high"]
        for (_, word, fault), text in zip(TURNS, agent[1:], strict=True):
            assert word.lower() in text.lower(), f"{fault}: {text!r}"
        assert not any(ERROR_WORDS.search(text.replace("140", "").replace("250", "")) for text in agent), agent
        assert failed == [fault for _, _, fault in TURNS if fault]
        metrics = await server.metrics()
        total, name = sample(metrics, "provider_failures_total"), "provider_failures_total"
        assert sample(metrics, name, service="llm", provider="groq") == 3, metrics
        assert sample(metrics, name, service="tts", provider="azure") == 1
        assert sample(metrics, name, service="stt", provider="azure") == 1
        assert total == 5, "a failure that nobody ordered"
        assert sample(metrics, "provider_fallbacks_total", provider="groq", successor="openai") == 3
        assert sample(metrics, "provider_fallbacks_total", provider="azure", successor="openai-tts") == 1
        # As many as were ordered of the services and came to pass there, and nothing else.
        state = await sims.azure_state()
        assert state["injected"] == {"cut": 2}
        struck = (await sims.chat_state("groq"))["injected"]
        # One request that meets a dead service on a connection that had idled goes out a second time.
        assert struck.pop("close") >= 1 and struck == {"overloaded": 1, "stream_reset": 1}
        assert (await sims.chat_state("openai"))["injected"] == {}

    serve(tmp_path, [PlannedCall("call", "", tuple(turns))], body)


@pytest.mark.parametrize("outcome", ["completed", "no-answer"])
def test_a_call_whose_models_are_all_gone_is_put_through_to_a_person(tmp_path: Path, outcome: str) -> None:
    turns = [Say(clip=pico_clip(text, rate_percent=80)) for text, _, _ in TURNS[:3]]
    person = "+15550142"

    async def body(server: ServerProcess, exchange: Exchange, sims: ProviderProcesses) -> None:
        exchange.dial_status = outcome
        for provider in ("groq", "openai"):
            await sims.fault_chat(provider, kind="close", times=None)
        caller = ScriptedCaller(turns, quiet_ms=900)
        call = await exchange.call(caller, from_="+15552000007", to=NUMBER, record=True)
        said = [one["text"] for one in server.log_lines()[0] if one.get("event") == "segment"]
        apology, told = "Could you say that again?", "I will put you through to a colleague."
        assert sum(text.endswith(apology) for text in said) == 2 and said[-1].endswith(told), said
        assert call.dialled == [person] and len(call.streams) == 1
        assert call.ended_by == "twiml" and exchange.debugger == []
        assert [text for text in call.said if text.startswith("Say:")] == (
            [] if outcome == "completed" else ["Say: All lines are busy."]
        )
        for record in caller.records[:2]:
            assert record.reply_latency_ms is not None and record.reply_latency_ms < DEAD_AIR_MS
        metrics = await server.metrics()
        assert sample(metrics, "calls_total", channel="twilio", outcome="handed_over") == 1

    limits = {"fallback_number": person, "farewell": "All lines are busy."}
    serve(tmp_path, [PlannedCall("call", "", tuple(turns))], body, **limits)


def words_of(text: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[^\W\d_]{3,}", text)}


def test_the_log_of_a_call_holds_nothing_that_was_said(tmp_path: Path) -> None:
    """By default, at the most talkative level, with a model that fails in between."""
    asked = TURNS[1:3]
    turns = [Say(clip=pico_clip(text, rate_percent=80), expect=(word,)) for text, word, _ in asked]
    said: set[str] = set()

    async def body(server: ServerProcess, exchange: Exchange, sims: ProviderProcesses) -> None:
        before = words_of(server.log.read_text())
        await sims.fault_chat("groq", kind="overloaded")
        caller = ScriptedCaller(turns, quiet_ms=900)
        await exchange.call(caller, from_="+15552000007", to=NUMBER)
        lines, _ = server.log_lines()
        segments = [one for one in lines if one.get("event") == "segment"]
        assert sample(await server.metrics(), "provider_fallbacks_total", provider="groq", successor="openai") == 1
        (warned,) = [one for one in lines if one.get("event") == "max_calls_high"]
        assert warned["level"] == "warning" and warned["message"].startswith("MAX_CALLS=41 with Azure Speech, whose")
        (capture,) = (server.data_dir / "capture").glob("*.capture")
        texts = [v["text"] for *_, acts, _ in steps(capture) for name, v in acts if name == "RecordSegment"]
        assert {text for text, _, _ in asked} <= set(texts)
        # How much was said stays.
        shown = [(one["text_chars"], one["text_words"]) for one in segments]
        assert shown == [(len(text), len(text.split())) for text in texts]
        said.update(*map(words_of, texts))
        said.difference_update(before)

    serve(tmp_path, [PlannedCall("call", "", tuple(turns))], body, logs={"LOG_LEVEL": "debug", "MAX_CALLS": "41"})
    log = (tmp_path / "server.log").read_text()
    assert len(said) > 20
    assert said & words_of(log) == set()
    assert "2000007" not in log
