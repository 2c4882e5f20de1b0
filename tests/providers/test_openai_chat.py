"""Chat adapters against the simulated services, by the vendors' SDKs over real sockets."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from pathlib import Path

import pytest

from bench.sim.openai import Answer, FixtureBrain, OpenAiSim, RateMeter, Style, ToolUse
from providers.base import ChatDone, ChatRequest, Message, TextDelta, ToolCall, ToolSpec
from providers.errors import (
    ProviderRejected,
    ProviderUnavailable,
)
from providers.groq.chat import GroqModel
from providers.openai.chat import OpenAIModel
from providers.openai.lane import tls_context
from providers.openai.options import GroqOptions, LinkOptions, OpenAiOptions
from tests.providers import conformance as suite
from tests.providers.openai_service import (
    ADAPTERS,
    FLAVOURS,
    KEY,
    Flavour,
    ask,
    model,
    run,
    service,
    tls_in_front,
)
from tests.support.certificate import write_certificate

ALL = pytest.mark.parametrize("name", ADAPTERS)
TEXT = "Wir öffnen um neun – ¡perfecto! 😀 Das Übliche kostet 90 €."
LONG = " ".join(f"word{n}" for n in range(200))
BRAIN = FixtureBrain({
    "hello": TEXT,
    "long": LONG,
    "book": Answer(calls=(ToolUse("find", '{"day": "jueves, mañana"}'), ToolUse("slots", ""))),
    "both": Answer(text="One moment.", calls=(ToolUse("find", "{}"),)),
    "think": Answer(text="Yes.", reasoning="A hard one."),
    "no": Answer(refusal="I cannot help with that."),
    "leak": "<think>She wants\n</b> something.</think>\n\nOf course.",
})  # fmt: skip
TOOLS = (
    ToolSpec("find", "finds", {"type": "object", "properties": {"day": {"type": "string"}}}),
    ToolSpec("slots", "lists", {}),
)


def text_of(events: list[object]) -> str:
    return "".join(one.text for one in events if isinstance(one, TextDelta))


async def answer(adapter: object, request: ChatRequest) -> list[object]:
    return [one async for one in adapter.stream(request)]  # type: ignore[attr-defined]


@ALL
@pytest.mark.parametrize("segments", ["split", "bytes", "joined"])
def test_text_however_the_network_cuts_it(name: str, segments: str) -> None:
    async def main() -> None:
        style = Style(segments=segments, comment_every=2, crlf=segments != "joined", double_finish=True)
        async with service(name, brain=BRAIN, style=style) as (_, adapter):
            events = await answer(adapter, ask("hello"))
            assert text_of(events) == TEXT
            done = events[-1]
            assert isinstance(done, ChatDone) and done.reason == "stop" and done.provider == name
            assert done.prompt_tokens > 5 and done.completion_tokens > 15

    run(main)


@ALL
@pytest.mark.parametrize("odd", [False, True], ids=["by-the-book", "odd"])
def test_tool_calls_and_the_round_after_them(name: str, odd: bool) -> None:
    async def main() -> None:
        style = Style(whole_calls=odd, stop_with_calls=odd, omit_role=odd, content_with_calls=odd, async_filter=odd)
        async with service(name, brain=BRAIN, style=style) as (sim, adapter):
            find, slots, done = await answer(adapter, ask("book", tools=TOOLS))
            assert isinstance(find, ToolCall) and isinstance(slots, ToolCall)
            assert (find.name, find.arguments) == ("find", '{"day": "jueves, mañana"}')
            assert (slots.name, slots.arguments) == ("slots", "{}")
            assert isinstance(done, ChatDone) and done.reason == "tool_calls"
            asked = (
                *ask("book").messages,
                Message("assistant", "", tool_calls=(find, slots)),
                Message("tool", "free at nine", tool_call_id=find.id),
                Message("tool", "hello", tool_call_id=slots.id),
            )
            # The simulator refuses calls without their results, as the services do.
            assert text_of(await answer(adapter, ChatRequest(messages=asked, tools=TOOLS))) == TEXT
            sent = sim.log.of("chat")[-1].body["messages"]
            assert sent[2]["content"] is None and sent[2]["tool_calls"][0]["function"]["name"] == "find"
            assert sent[3] == {"role": "tool", "content": "free at nine", "tool_call_id": find.id}
            both = await answer(adapter, ask("both", tools=TOOLS))
            assert text_of(both) == "One moment." and isinstance(both[-2], ToolCall)

    run(main)


@ALL
def test_what_is_thought_is_not_said(name: str) -> None:
    async def main() -> None:
        async with service(name, brain=BRAIN) as (_, adapter):
            assert text_of(await answer(adapter, ask("think"))) == "Yes."
            assert text_of(await answer(adapter, ask("leak"))) == "Of course."
            assert text_of(await answer(adapter, ask("no"))) == "I cannot help with that."

    run(main)


@ALL
def test_ends_of_their_own(name: str) -> None:
    async def main() -> None:
        async with service(name, brain=BRAIN) as (sim, adapter):
            for kind, text, reason in (
                ("no_done", TEXT, "stop"), ("finish_length", "Wir öffnen um neun", "length"),
                ("finish_content_filter", "Wir öffnen um neun", "content_filter"),
            ):  # fmt: skip
                sim.inject(kind, after_tokens=4)
                events = await answer(adapter, ask("hello"))
                assert text_of(events) == text
                assert isinstance(events[-1], ChatDone) and events[-1].reason == reason
            assert text_of(await answer(adapter, ask("hello"))) == TEXT

    run(main)


def test_groq_asks_once_more_for_a_call_that_was_none() -> None:
    async def main() -> None:
        async with service("groq", brain=BRAIN) as (sim, adapter):
            sim.inject("tool_use_failed")
            assert text_of(await answer(adapter, ask("hello"))) == TEXT
            assert len(sim.log.of("chat")) == 2
            sim.inject("tool_use_failed", times=2)
            _, error = await suite.fails(adapter, ask("hello"), ProviderRejected, status=400, retryable=True)
            assert isinstance(error, ProviderRejected) and error.code == "tool_use_failed"
            assert len(sim.log.of("chat")) == 4

    run(main)


def test_when_to_come_back_and_what_is_left() -> None:
    async def main() -> None:
        async with service("groq", brain=BRAIN, meter=RateMeter(Flavour.GROQ, requests=3, tokens=10_000)) as (sim, one):
            told = []
            one.tell_limits(lambda *of: told.append(of))
            await answer(one, ask("hello"))
            limits = one._link.limits.newest
            assert limits is not None and limits.reset_requests_ms is not None and limits.remaining_tokens is not None
            assert told == [("requests", 2, 3), ("tokens", limits.remaining_tokens, 10_000)]
            assert 28_000_000 < limits.reset_requests_ms < 28_800_001
            date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))
            for how, least, most in (
                ({"retry_after": "7"}, 7000, 7000),
                ({"retry_after_ms": 350}, 350, 350),
                ({"retry_after": date}, 58_000, 60_000),
                ({"retry_after": "soon"}, None, None),
            ):  # fmt: skip
                sim.inject("rate_limit", **how)
                _, error = await suite.fails(one, ask("hello"), ProviderRejected, status=429)
                assert isinstance(error, ProviderRejected)
                assert error.retry_after_ms == least or (least and least <= (error.retry_after_ms or 0) <= most)
            for _ in range(2):
                await answer(one, ask("hello"))
            _, error = await suite.fails(one, ask("hello"), ProviderRejected, status=429, retryable=True)
            assert isinstance(error, ProviderRejected) and error.retry_after_ms and error.retry_after_ms > 28_000_000
            assert told[-2] == ("requests", 0, 3), "a refusal tells them too"

    run(main)


# Change of the request -> what of the body changes to what, by adapter ("" for the rest).
CHANGES = [
    ({"temperature": 1.5}, {"": {"temperature": 1.5}}),
    ({"max_tokens": 77}, {"": {"max_completion_tokens": 77}, "compatible": {"max_tokens": 77}}),
    ({"frequency_penalty": 0.5}, {"": {"frequency_penalty": 0.5}}),
    ({"presence_penalty": -0.5}, {"": {"presence_penalty": -0.5}}),
    ({"reasoning_effort": "high"}, {"": {"reasoning_effort": "high"}}),
    ({"reasoning_effort": "none"}, {"": {"reasoning_effort": "none"}, "groq": {}}),
]  # fmt: skip


@ALL
def test_each_setting_changes_what_is_sent(name: str) -> None:
    async def main() -> None:
        async with service(name, brain=BRAIN) as (sim, adapter):
            await answer(adapter, ask("hello"))
            plain = sim.log.of("chat")[-1].body
            assert plain["stream"] is True and plain["stream_options"]["include_usage"] is True
            assert ("include_obfuscation" in plain["stream_options"]) == (name == "openai")
            assert ("include_reasoning" in plain) == (name == "groq")
            for change, wanted in CHANGES:
                await answer(adapter, ask("hello", **change))
                body = sim.log.of("chat")[-1].body
                assert {k: v for k, v in body.items() if plain.get(k) != v} == wanted.get(name, wanted[""]), change
            other = {Flavour.GROQ: "qwen/qwen3.8-27b"}.get(FLAVOURS[name], "gpt-4.1-mini")
            await answer(adapter, ask("hello", model=other))
            seen = sim.log.of("chat")[-1]
            assert seen.body["model"] == other
            if name == "azure-openai":
                assert seen.path == f"/openai/deployments/{other}/chat/completions"
                assert (seen.query, seen.headers["api-key"]) == ({"api-version": "2024-10-21"}, KEY)
            else:
                assert seen.headers["authorization"] == f"Bearer {KEY}"
            if name == "groq":
                assert (seen.body["reasoning_format"], seen.body["reasoning_effort"]) == ("hidden", "none")

    run(main)


@pytest.mark.parametrize("name", ["openai", "azure-openai"])
def test_a_model_that_takes_less_is_learned(name: str) -> None:
    """A reasoning model takes neither temperature nor penalties: by its name, or after one refusal each."""

    async def main() -> None:
        async with service(name, brain=BRAIN) as (sim, adapter):
            wanted = ask("hello", model="gpt-5-mini", presence_penalty=0.5)
            assert text_of(await answer(adapter, wanted)) == TEXT
            [seen] = sim.log.of("chat")
            assert seen.body["reasoning_effort"] == "low" and "temperature" not in seen.body
            # A deployment whose name tells nothing.
            sim.models["frontdesk"] = sim.models["gpt-5-mini"]
            assert text_of(await answer(adapter, ask("hello", model="frontdesk", presence_penalty=0.5))) == TEXT
            assert [one.status for one in sim.log.of("chat")[1:]] == [400, 400, 200]
            await answer(adapter, ask("hello", model="frontdesk", presence_penalty=0.5))
            assert "temperature" not in sim.log.of("chat")[-1].body and len(sim.log.of("chat")) == 5

    run(main)


def test_compatible_services() -> None:
    async def main() -> None:
        options = {"limit": "max_tokens", "include_usage": False}
        async with service("compatible", brain=BRAIN, options=options) as (sim, adapter):
            events = await answer(adapter, ask("hello"))
            assert isinstance(events[-1], ChatDone) and events[-1].prompt_tokens == 0
            assert "stream_options" not in sim.log.of("chat")[-1].body
            # It says max_tokens; the model wants the other name.
            assert text_of(await answer(adapter, ask("hello", model="gpt-5-mini"))) == TEXT
            assert sim.log.of("chat")[-1].body["max_completion_tokens"] == 300
            nobody = model("compatible", sim, key="")
            await suite.fails(nobody, ask("hello"), ProviderRejected, status=401)
            assert "authorization" not in sim.log.of("chat")[-1].headers
            await nobody.aclose()

    run(main)


def test_no_key_of_the_environment_reaches_a_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_BASE_URL", "AZURE_OPENAI_AD_TOKEN")
    for variable in found:
        monkeypatch.setenv(variable, "http://secret-of-another")

    async def main() -> None:
        for name in ADAPTERS:
            async with service(name, brain=BRAIN) as (sim, adapter):
                assert text_of(await answer(adapter, ask("hello"))) == TEXT
                assert "secret-of-another" not in str(sim.log.of("chat")[-1].headers)
        async with service("compatible", brain=BRAIN) as (sim, _):
            nobody = model("compatible", sim, key="")
            await suite.fails(nobody, ask("hello"), ProviderRejected, status=401)
            assert "secret-of-another" not in str(sim.log.of("chat")[-1].headers)
            await nobody.aclose()

    run(main)


@ALL
def test_a_probe_says_what_is_wrong(name: str) -> None:
    async def main() -> None:
        async with service(name, brain=BRAIN) as (sim, adapter):
            well = await adapter.check()
            assert well.is_well and well.is_found and well.latency_ms is not None and 0 < well.latency_ms < 2000
            missing = "deployment" if name.startswith("azure") else "model"
            other = model(name, sim, **{missing: "gpt-9-typo"})
            wrong = await other.check()
            assert wrong.is_reached and wrong.is_found is False and "gpt-9-typo" in wrong.problem
            locked = model(name, sim, key="wrong-key-of-ours")
            refused = await locked.check()
            assert not refused.is_reached and "401" in refused.problem and "wrong-key" not in refused.problem
            sim.go_down()
            gone = await adapter.check()
            assert not gone.is_reached and "connection" in gone.problem
            for one in (other, locked):
                await one.aclose()

    run(main)


# ── connections ───────────────────────────────────────────────────────────────────────────────────────────────


async def until_warm(adapter: object, count: int) -> None:
    while adapter._link.lanes.warm != count:  # type: ignore[attr-defined]
        await asyncio.sleep(0.001)


@ALL
def test_a_turn_after_a_cancelled_one_finds_a_connection(name: str) -> None:
    async def main() -> None:
        async with service(name, link=LinkOptions(spares=1), brain=BRAIN) as (sim, adapter):
            adapter.attach_nowait()
            await until_warm(adapter, 1)
            assert [one.route for one in sim.log.of()] == ["models"]
            for _ in range(3):
                async with aclosing(adapter.stream(ask("long"))) as stream:
                    await anext(stream)
                await until_warm(adapter, 1)
            await answer(adapter, ask("hello"))
            opened_by = {}
            for one in sim.log.of():
                opened_by.setdefault(one.connection, one.route)
            # No request for an answer ever had to open a connection.
            assert set(opened_by.values()) == {"models"}, opened_by
            adapter.detach_nowait()

    run(main)


@pytest.mark.parametrize("name", ["openai", "groq"])
def test_over_tls_too(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled within a frame, another connection ready."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    write_certificate(cert, key, serial=1)

    async def main() -> None:
        async with OpenAiSim(FLAVOURS[name], brain=BRAIN) as sim, tls_in_front(sim.port, cert, key) as port:
            base = f"https://localhost:{port}" + ("/v1" if name == "openai" else "")
            link = LinkOptions(spares=1)
            options = {"key": KEY, "base_url": base, "link": link}
            monkeypatch.setenv("SSL_CERT_FILE", str(cert))
            tls_context.cache_clear()
            adapter = GroqModel(GroqOptions(**options)) if name == "groq" else OpenAIModel(OpenAiOptions(**options))
            adapter.attach_nowait()
            await until_warm(adapter, 1)
            stream = adapter.stream(ask("long"))
            await anext(stream)
            began_s = time.perf_counter()
            await stream.aclose()
            assert time.perf_counter() - began_s < suite.FRAME_S
            await until_warm(adapter, 1)
            assert text_of(await answer(adapter, ask("hello"))) == TEXT
            assert [one.route for one in sim.log.of()] == ["models", "chat", "models", "chat"]
            await adapter.aclose()

    try:
        asyncio.run(main())  # uvloop's TLS side of the relay is collected late, and then complains in another test
    finally:
        tls_context.cache_clear()


def test_spares_are_used_now_and_then_and_closed_after_the_last_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("providers.openai.lane.TICK_S", 0.01)

    async def main() -> None:
        link = LinkOptions(spares=2, refresh_ms=40, keep_alive_ms=120)
        async with service("openai", link=link, brain=BRAIN) as (sim, adapter):
            adapter.attach_nowait()
            adapter.attach_nowait()
            while len(sim.log.of("models")) < 8:  # each spare three times over
                await asyncio.sleep(0.005)
            assert sim.connections == 2 and adapter._link.lanes.opened == 2
            adapter.detach_nowait()
            adapter.detach_nowait()
            await until_warm(adapter, 0)
            while adapter._link.lanes._timer is not None or adapter._link.lanes._tasks:
                await asyncio.sleep(0.005)

    run(main)


def test_spares_are_bounded_and_a_service_that_is_down_is_left_alone() -> None:
    async def main() -> None:
        async with service("openai", link=LinkOptions(spares=2), brain=BRAIN) as (sim, adapter):
            for _ in range(50):
                adapter.attach_nowait()
            await until_warm(adapter, 2)
            assert sim.connections == 2
            sim.go_down()
            await until_warm(adapter, 0)
            for _ in range(5):
                await suite.fails(adapter, ask("hello"), ProviderUnavailable)
            assert adapter._link.lanes.opened < 2 + 5 + 6
            await sim.come_up()
            assert text_of(await answer(adapter, ask("hello"))) == TEXT

    run(main)


def test_too_many_requests_are_refused_not_queued() -> None:
    async def main() -> None:
        async with service("groq", link=LinkOptions(max_requests=2), brain=BRAIN) as (sim, adapter):
            sim.inject("silence", after_tokens=1, times=2)
            streams = [adapter.stream(ask("hello")) for _ in range(2)]
            for stream in streams:
                await anext(stream)
            _, error = await suite.fails(adapter, ask("hello"), ProviderUnavailable)
            assert "2 requests at once" in str(error)
            for stream in streams:
                await stream.aclose()
            assert text_of(await answer(adapter, ask("hello"))) == TEXT

    run(main)


def test_a_connection_that_died_unnoticed_costs_one_more_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("providers.openai.lane.STALE_AFTER_S", 0.0)

    async def main() -> None:
        for name in ("openai", "groq"):
            async with service(name, brain=BRAIN) as (sim, adapter):
                await answer(adapter, ask("hello"))
                sim.inject("reset")
                assert text_of(await answer(adapter, ask("hello"))) == TEXT
                assert adapter._link.lanes.stale == 1 and sim.connections == 2
                sim.inject("reset", times=2)
                await suite.fails(adapter, ask("hello"), ProviderUnavailable)

    run(main)


def test_a_closed_adapter_says_so() -> None:
    async def main() -> None:
        async with service("openai", brain=BRAIN) as (_, adapter):
            adapter.attach_nowait()
            await adapter.aclose()
            await adapter.aclose()
            await suite.fails(adapter, ask("hello"), ProviderUnavailable)

    run(main)
