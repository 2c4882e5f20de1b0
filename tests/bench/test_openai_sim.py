"""The simulated language services, by the vendors' own SDKs over real sockets: streams, faults, refusals."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from dataclasses import replace
from typing import Any

import groq
import openai
import pytest

from bench.sim.openai import (
    Answer,
    FixtureBrain,
    Flavour,
    Model,
    OpenAiSim,
    RateMeter,
    ScriptedBrain,
    Style,
    ToolUse,
)
from bench.sim.openai.check import check_chat
from bench.sim.openai.flavour import Refusal, duration
from bench.sim.profile import PROFILES
from tests.bench.openai_client import CHAT_MODEL, USER, Heard, client, run, talk, tool

ALL = pytest.mark.parametrize("flavour", list(Flavour))
TEXT = "Wir öffnen um neun – ¡perfecto! 😀 Das Übliche kostet 90 €."
BOOKING = Answer(calls=(ToolUse("find", '{"day": "jueves, mañana"}'), ToolUse("slots", "{}")))
BRAIN = FixtureBrain({"hello": TEXT, "book": BOOKING, "think": Answer(text="Yes.", reasoning="A hard one.")})
LONG = FixtureBrain({}, " ".join(f"word{n}" for n in range(200)))
TOOLS = [tool("find"), tool("slots")]
BOOK = [{"role": "user", "content": "book"}]


def sdk(flavour: Flavour) -> Any:
    return groq if flavour is Flavour.GROQ else openai


@ALL
@pytest.mark.parametrize("segments", ["event", "split", "bytes", "joined"])
def test_a_text_arrives_whole_however_it_is_cut(flavour: Flavour, segments: str) -> None:
    async def main() -> None:
        style = Style(segments=segments, comment_every=3, crlf=segments == "split")
        async with OpenAiSim(flavour, brain=BRAIN, style=style) as sim, client(sim) as one:
            # Groq's SDK has no name for the option, its service has.
            heard = await talk(one, sim, extra_body={"stream_options": {"include_usage": True}})
            assert (heard.text, heard.finish, heard.roles) == (TEXT, ["stop"], ["assistant"])
            assert len(heard.chunks) > 15
            if flavour is Flavour.GROQ:
                finish = heard.chunks[-2].x_groq
                assert (finish.usage.total_tokens, finish.id) == (heard.usage.total_tokens, heard.chunks[0].x_groq.id)
                assert heard.usage.queue_time is not None
                assert heard.chunks[0].x_groq.id.startswith("req_")
            assert heard.usage.completion_tokens > 15
            assert heard.usage.total_tokens == heard.usage.prompt_tokens + heard.usage.completion_tokens
            [seen] = sim.log.of("chat")
            assert (seen.body["messages"], seen.ended, seen.status) == (USER, "done", 200)

    run(main)


@ALL
@pytest.mark.parametrize("whole", [False, True], ids=["pieces", "whole"])
def test_parallel_tool_calls_and_the_round_after_them(flavour: Flavour, whole: bool) -> None:
    async def main() -> None:
        style = Style(whole_calls=whole, stop_with_calls=whole, omit_role=whole, content_with_calls=whole)
        async with OpenAiSim(flavour, brain=BRAIN, style=style) as sim, client(sim) as one:
            heard = await talk(one, sim, messages=BOOK, tools=TOOLS)
            assert heard.calls == {0: ["find", '{"day": "jueves, mañana"}'], 1: ["slots", "{}"]}
            assert heard.finish == (["stop"] if whole else ["tool_calls"])
            assert heard.roles == ([] if whole else ["assistant"])
            assert len(set(heard.ids)) == 2
            calls = [
                {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
                for call_id, (name, arguments) in zip(heard.ids, heard.calls.values(), strict=True)
            ]
            asked = [*BOOK, {"role": "assistant", "content": None, "tool_calls": calls}]
            with pytest.raises(sdk(flavour).BadRequestError, match="tool_call_id"):
                await talk(one, sim, messages=[*asked, *BOOK], tools=TOOLS)
            asked += [{"role": "tool", "tool_call_id": call_id, "content": "hello"} for call_id in heard.ids]
            assert (await talk(one, sim, messages=asked, tools=TOOLS)).text == TEXT

    run(main)


def test_azure_tells_its_filter_and_groq_its_reasoning() -> None:
    async def main() -> None:
        async with OpenAiSim(Flavour.AZURE, brain=BRAIN) as sim, client(sim) as one:
            first, *rest = (await talk(one, sim)).chunks
            assert first.choices == []
            assert first.prompt_filter_results[0]["content_filter_results"]["hate"] == {
                "filtered": False,
                "severity": "safe",
            }
            assert all(chunk.choices[0].content_filter_results is not None for chunk in rest)
            sim.style = Style(async_filter=True)
            heard = await talk(one, sim)
            [note] = [c for c in heard.chunks if c.choices and c.choices[0].delta is None]
            assert note.choices[0].content_filter_offsets["end_offset"] == len(TEXT)
            assert heard.text == TEXT
        async with OpenAiSim(Flavour.GROQ, brain=BRAIN) as sim, client(sim) as one:
            think = [{"role": "user", "content": "think"}]
            heard = await talk(one, sim, messages=think)
            assert (heard.text, heard.reasoning) == ("Yes.", "A hard one.")
            assert (await talk(one, sim, messages=think, reasoning_format="hidden")).reasoning == ""

    run(main)


def test_an_answer_in_one_piece_and_the_limits_of_a_request() -> None:
    async def main() -> None:
        for flavour in Flavour:
            async with OpenAiSim(flavour, brain=BRAIN) as sim, client(sim) as one:
                model = CHAT_MODEL[flavour]
                whole = await one.chat.completions.create(model=model, messages=BOOK, tools=TOOLS)
                assert [call.function.name for call in whole.choices[0].message.tool_calls] == ["find", "slots"]
                assert whole.usage.total_tokens > 0
                short = await talk(one, sim, max_tokens=2)
                assert (short.text, short.finish) == ("Wir öffnen", ["length"])
                assert (await talk(one, sim, stop=["um"])).text == "Wir öffnen "
                names = [model.id for model in (await one.models.list()).data]
                assert CHAT_MODEL[flavour] in names

    run(main)


def test_a_prompt_seen_before_is_cached() -> None:
    async def main() -> None:
        async with OpenAiSim(Flavour.OPENAI, brain=BRAIN) as sim, client(sim) as one:
            options = {"include_usage": True}
            messages = [{"role": "system", "content": "x" * 8000}, *USER]
            first = await talk(one, sim, messages=messages, stream_options=options)
            again = await talk(one, sim, messages=[*messages, *USER], stream_options=options)
            assert first.usage.prompt_tokens_details.cached_tokens == 0
            assert again.usage.prompt_tokens_details.cached_tokens == 1920

    run(main)


# Fault -> what the SDK raises, its status, a word of its message or body.
REFUSED: list[tuple[str, str, int, str]] = [
    ("unauthorized", "AuthenticationError", 401, "key"),
    ("forbidden", "PermissionDeniedError", 403, ""),
    ("model_not_found", "NotFoundError", 404, "does not exist"),
    ("context_length", "BadRequestError", 400, "reduce the length"),
    ("content_filter", "BadRequestError", 400, "filtered"),
    ("unprocessable", "UnprocessableEntityError", 422, ""),
    ("conflict", "ConflictError", 409, ""),
    ("rate_limit", "RateLimitError", 429, "rate limit|Rate limit"),
    ("insufficient_quota", "RateLimitError", 429, "quota"),
    ("slow_down", "RateLimitError", 429, "ramp"),
    ("capacity", "APIStatusError", 498, "capacity"),
    ("tool_use_failed", "BadRequestError", 400, "failed_generation"),
    ("server_error", "InternalServerError", 500, ""),
    ("bad_gateway", "InternalServerError", 502, ""),
    ("overloaded", "InternalServerError", 503, ""),
    ("gateway_timeout", "InternalServerError", 504, ""),
]


@ALL
def test_each_refusal_is_the_error_that_the_sdk_has_for_it(flavour: Flavour) -> None:
    async def main() -> None:
        async with OpenAiSim(flavour, brain=BRAIN) as sim, client(sim) as one:
            for kind, error, status, word in REFUSED:
                sim.inject(kind)
                with pytest.raises(getattr(sdk(flavour), error), match=word or None) as raised:
                    await talk(one, sim)
                assert type(raised.value).__name__ == error
                assert raised.value.status_code == status
                assert raised.value.response.headers["x-request-id"]
                seen = sim.log.of("chat")[-1]
                assert (seen.fault, seen.status, seen.ended) == (kind, status, "refused")
            assert sim.faults.injected == {kind: 1 for kind, *_ in REFUSED}
            assert (await talk(one, sim)).text == TEXT

    run(main)


def test_the_bodies_of_errors_are_the_vendors() -> None:
    async def raised(flavour: Flavour, kind: str) -> Any:
        async with OpenAiSim(flavour) as sim, client(sim) as one:
            sim.inject(kind)
            with pytest.raises(sdk(flavour).APIStatusError) as caught:
                await talk(one, sim)
            return caught.value.response.json()["error"]

    async def main() -> None:
        quota = await raised(Flavour.OPENAI, "insufficient_quota")
        assert (quota["type"], quota["code"]) == ("insufficient_quota", "insufficient_quota")
        blocked = await raised(Flavour.AZURE, "content_filter")
        assert blocked["innererror"]["code"] == "ResponsibleAIPolicyViolation"
        assert (await raised(Flavour.AZURE, "rate_limit")).keys() == {"code", "message"}
        failed = await raised(Flavour.GROQ, "tool_use_failed")
        assert failed["code"] == "tool_use_failed"
        assert failed["failed_generation"]
        overloaded = await raised(Flavour.OPENAI, "overloaded")
        assert (overloaded["type"], overloaded["code"]) == ("service_unavailable_error", "server_is_overloaded")

    run(main)


def test_what_a_429_says_of_later() -> None:
    async def main() -> None:
        async with OpenAiSim(Flavour.GROQ) as sim, client(sim) as one:
            date = "Fri, 27 Nov 2026 10:00:00 GMT"
            for how, name, value in (
                ({"retry_after": "7"}, "retry-after", "7"),
                ({"retry_after_ms": 350}, "retry-after-ms", "350"),
                ({"retry_after": date}, "retry-after", date),
                ({"should_retry": False}, "x-should-retry", "false"),
            ):
                sim.inject("rate_limit", **how)
                with pytest.raises(groq.RateLimitError) as raised:
                    await talk(one, sim)
                assert raised.value.response.headers[name] == value

    run(main)


@ALL
def test_faults_before_and_in_a_stream(flavour: Flavour) -> None:
    async def fails(sim: OpenAiSim, one: Any, error: str, kind: str, **how: Any) -> Heard:
        sim.inject(kind, **how)
        heard = Heard()
        with pytest.raises(getattr(sdk(flavour), error)) as raised:
            await talk(one, sim, heard)
        assert type(raised.value).__name__ == error
        assert sim.log.of("chat")[-1].fault == kind
        return heard

    async def main() -> None:
        async with OpenAiSim(flavour, brain=BRAIN) as sim, client(sim, read_s=0.15) as one:
            for kind in ("close", "reset"):
                await fails(sim, one, "APIConnectionError", kind)
            await fails(sim, one, "APITimeoutError", "slow_first_token", delay_ms=2000)
            # Once the head is there, groq hands on what its HTTP library raises; openai has its own errors.
            for kind, ours, groqs in (
                ("silence", "APITimeoutError", "ReadTimeout"),
                ("stream_reset", "APIConnectionError", "ReadError"),
                ("stream_cut", "APIConnectionError", "RemoteProtocolError"),
                ("error_event", "APIError", "APIError"),
                ("garbage", "JSONDecodeError", "JSONDecodeError"),
                ("bad_utf8", "UnicodeDecodeError", "UnicodeDecodeError"),
            ):
                sim.inject(kind, after_tokens=4)
                heard = Heard()
                with pytest.raises(Exception) as raised:
                    await talk(one, sim, heard)
                assert type(raised.value).__name__ == (groqs if flavour is Flavour.GROQ else ours)
                assert heard.text == "Wir öffnen um neun"
                seen = sim.log.of("chat")[-1]
                await seen.over.wait()
                assert seen.fault == kind
            assert sim.faults.injected == dict.fromkeys(sim.faults.picked, 1)
            assert len(sim.faults.injected) == 9

    run(main)


@ALL
def test_streams_that_end_wrong_without_an_error_of_the_sdk(flavour: Flavour) -> None:
    """None of these raises in the SDK: whoever uses it has to notice by itself."""

    async def main() -> None:
        async with OpenAiSim(flavour, brain=BRAIN) as sim, client(sim) as one:
            cut = "Wir öffnen um neun"
            for kind, text, finish in (
                ("early_end", cut, []),
                ("no_done", TEXT, ["stop"]),
                ("json_200", "", []),
                ("empty_200", "", []),
                ("finish_length", cut, ["length"]),
                ("finish_content_filter", cut, ["content_filter"]),
            ):
                sim.inject(kind, after_tokens=4)
                heard = await talk(one, sim)
                assert (heard.text, heard.finish) == (text, finish), kind
                assert sim.faults.injected[kind] == 1

    run(main)


def test_comments_keep_a_stream_alive_that_says_nothing() -> None:
    async def main() -> None:
        async with OpenAiSim(Flavour.OPENAI, brain=BRAIN) as sim, client(sim, read_s=0.2) as one:
            sim.inject("comments", after_tokens=2, every_ms=20)
            heard = Heard()
            begun = time.monotonic()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await talk(one, sim, heard)
            # The read timeout of 0.2 s never came, and nothing but the first two tokens did. Loops count in whole ms.
            assert time.monotonic() - begun >= 0.49
            assert heard.text == "Wir öffnen"

    run(main)


def test_an_endless_answer_ends_when_the_client_leaves() -> None:
    async def main() -> None:
        async with OpenAiSim(Flavour.GROQ, brain=BRAIN) as sim, client(sim) as one:
            sim.inject("endless", after_tokens=1)
            stream = await one.chat.completions.create(model=CHAT_MODEL[sim.flavour], messages=USER, stream=True)
            async for _ in stream:
                if sim.log.of("chat")[-1].sent_bytes > 200_000:
                    break
            await stream.close()
            [seen] = sim.log.of("chat")
            await seen.over.wait()
            assert seen.ended == "client"

    run(main)


def test_a_client_that_leaves_is_noticed_at_once_in_a_silent_stream() -> None:
    async def main() -> None:
        async with OpenAiSim(Flavour.OPENAI, brain=LONG) as sim, client(sim) as one:
            sim.inject("silence", after_tokens=1)
            stream = await one.chat.completions.create(model=CHAT_MODEL[sim.flavour], messages=USER, stream=True)
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    break
            left = time.monotonic()
            await stream.close()
            [seen] = sim.log.of("chat")
            await seen.over.wait()
            assert (seen.ended, seen.tokens) == ("client", 1)
            assert seen.ended_s - left < 0.1

    run(main)


def test_down_refuses_and_drops_and_comes_up_at_the_same_port() -> None:
    async def main() -> None:
        async with OpenAiSim(Flavour.AZURE, brain=LONG, profile=PROFILES["azure-groq"]) as sim, client(sim) as one:
            stream = await one.chat.completions.create(model=CHAT_MODEL[sim.flavour], messages=USER, stream=True)
            sim.go_down(for_s=0.3)
            with pytest.raises(openai.APIConnectionError):
                [chunk async for chunk in stream]
            with pytest.raises(openai.APIConnectionError):
                await talk(one, sim)
            port = sim.port
            await sim.up.wait()
            await one.models.list()
            assert sim.port == port

    run(main)


def test_connections_are_kept_and_numbered() -> None:
    async def main() -> None:
        async with OpenAiSim(Flavour.GROQ, brain=BRAIN) as sim, client(sim) as one:
            for _ in range(3):
                await talk(one, sim)
            assert [seen.connection for seen in sim.log.of("chat")] == [1, 1, 1]
            assert sim.connections == 1

    run(main)


@ALL
def test_a_profile_paces_the_first_token_and_the_rest(flavour: Flavour) -> None:
    async def main() -> None:
        words = FixtureBrain({}, "word " * 50)
        async with OpenAiSim(flavour, brain=words, profile=PROFILES["azure-groq"]) as sim, client(sim) as one:
            begun = time.monotonic()
            request = {"model": CHAT_MODEL[flavour], "messages": USER, "stream": True}
            times = []
            async for chunk in await one.chat.completions.create(**request):
                if chunk.choices and chunk.choices[0].delta.content:
                    times.append(time.monotonic() - begun)
            assert 0.03 < times[0] < 1.5
            # 50 tokens at 250 a second.
            assert 0.15 < times[-1] - times[0] < 0.6

    run(main)


@ALL
def test_a_seed_says_which_requests_suffer(flavour: Flavour) -> None:
    async def once() -> list[str]:
        async with OpenAiSim(flavour, brain=BRAIN, seed=7) as sim, client(sim) as one:
            sim.inject("overloaded", times=None, probability=0.3)
            for _ in range(20):
                try:
                    await talk(one, sim)
                except sdk(flavour).InternalServerError:
                    continue
            faults = [seen.fault for seen in sim.log.of("chat")]
            assert sim.faults.injected["overloaded"] == faults.count("overloaded")
            return faults

    async def main() -> None:
        first = await once()
        assert 1 < first.count("overloaded") < 15
        assert await once() == first

    run(main)


MESSAGE = {"role": "assistant", "content": "hi"}
CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
# What no flavour takes: changes to a good request, and a word of the complaint.
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "caller", "content": "hello"}]}, "role"),
    ({"messages": [{"role": "user", "content": 7}]}, "content"),
    ({"messages": [{"role": "user"}]}, "content"),
    ({"messages": [*USER, {"role": "tool", "tool_call_id": "c1", "content": "1"}]}, "tool"),
    ({"messages": [{**MESSAGE, "tool_calls": [CALL]}]}, "tool_call_id"),
    ({"messages": [{**MESSAGE, "tool_calls": []}]}, "tool_calls"),
    ({"messages": [{**MESSAGE, "tool_calls": [{**CALL, "function": {"name": "find", "arguments": {}}}]}]}, "arguments"),
    ({"temperature": 3}, "temperature"),
    ({"temperature": "warm"}, "temperature"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 5, "max_completion_tokens": 5}, "max_completion_tokens"),
    ({"presence_penalty": -2.5}, "presence_penalty"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ({"tool_choice": "auto"}, "tools"),
    ({"tools": []}, "tools"),
    ({"tools": [tool("a b")]}, "name"),
    ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
    ({"reasoning_effort": "very"}, "reasoning_effort"),
    ({"extra_body": {"temprature": 1}}, "temprature"),
    ({"stream": False, "extra_body": {"stream_options": {"include_usage": True}}}, "stream"),
]
WRONG_AT_GROQ: list[tuple[dict[str, Any], str]] = [
    ({"logprobs": True}, "logprobs"),
    ({"logit_bias": {"1": 1}}, "logit_bias"),
    ({"n": 2}, "n"),
    ({"messages": [{**USER[0], "name": "Ann"}]}, "name"),
    ({"reasoning_format": "hidden", "include_reasoning": False}, "reasoning_format"),
    ({"tools": TOOLS, "response_format": {"type": "json_object"}}, "json mode"),
    ({"extra_body": {"prompt_cache_key": "a"}}, "prompt_cache_key"),
]
WRONG_WHERE_IT_REASONS: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": 5}, "max_completion_tokens"),
    ({"temperature": 0.4}, "temperature"),
    ({"stop": "x"}, "stop"),
]


@ALL
def test_a_malformed_request_is_refused(flavour: Flavour) -> None:
    async def main() -> None:
        async with OpenAiSim(flavour) as sim, client(sim) as one:
            wrong = WRONG + (WRONG_AT_GROQ if flavour is Flavour.GROQ else [])
            if flavour is not Flavour.GROQ:
                wrong = wrong + [({**change, "model": "gpt-5-mini"}, word) for change, word in WRONG_WHERE_IT_REASONS]
            for change, word in wrong:
                request = {"model": CHAT_MODEL[flavour], "messages": USER, "stream": True} | change
                with pytest.raises(sdk(flavour).BadRequestError, match=word):
                    await one.chat.completions.create(**request)
            assert [seen.ended for seen in sim.log.of("chat")] == ["refused"] * len(wrong)

    run(main)


# Values that do not belong where they are put.
ANYTHING: list[Any] = [
    None, True, -1, 1.5, "", "auto", [], {}, [1], ["a"], [{}], {"type": "function"},
    {"type": "function", "function": "x"}, {"type": "function", "function": {"name": []}},
    [{"role": "user", "content": [1]}], [{"role": ["x"]}],
    [{"role": "assistant", "tool_calls": "x"}], [{"role": "assistant", "tool_calls": [1]}],
    [{"role": "tool", "tool_call_id": []}], [{"role": "user", "content": [{"type": "text", "text": 1}]}],
    [{"type": "function", "function": {"name": "a", "parameters": []}}], {"function": "x"},
]  # fmt: skip
NAMES = [
    "messages", "frequency_penalty", "logit_bias", "max_completion_tokens", "n", "parallel_tool_calls", "stop",
    "reasoning_effort", "reasoning_format", "response_format", "service_tier", "stream_options", "temperature",
    "tool_choice", "tools", "seed",
]  # fmt: skip


@ALL
def test_no_request_breaks_the_check(flavour: Flavour) -> None:
    dice = random.Random(5)
    refused = 0
    for _ in range(3000):
        raw: dict[str, Any] = {"model": "m", "messages": USER, "stream": True}
        raw |= {"tools": TOOLS} if dice.random() < 0.5 else {}
        raw |= {dice.choice(NAMES): dice.choice(ANYTHING) for _ in range(dice.randint(1, 3))}
        try:
            check_chat(raw, flavour, Model("m", reasons=dice.random() < 0.5))
        except Refusal as refusal:
            assert refusal.status == 400
            refused += 1
    assert 1500 < refused < 3000


@ALL
def test_keys_models_contexts_and_addresses(flavour: Flavour) -> None:
    async def main() -> None:
        small = Model("small", context_tokens=100)
        vendor = sdk(flavour)
        async with OpenAiSim(flavour, models=[small]) as sim:
            async with client(sim, key="other") as one:
                with pytest.raises(vendor.AuthenticationError):
                    await talk(one, sim)
            async with client(sim) as one:
                with pytest.raises(vendor.NotFoundError):
                    await talk(one, sim, model="gpt-0")
                with pytest.raises(vendor.BadRequestError, match="reduce the length"):
                    await talk(one, sim, model="small", messages=[{"role": "user", "content": "x" * 500}])
                sim.keys.clear()
                with pytest.raises(vendor.AuthenticationError):
                    await talk(one, sim)
            elsewhere = openai.AsyncOpenAI(api_key="sim-key", base_url=f"{sim.url}/v2", max_retries=0)
            async with elsewhere:
                with pytest.raises(openai.NotFoundError):
                    await talk(elsewhere, sim)

    run(main)


def test_the_openai_client_reaches_all_three_by_address() -> None:
    async def main() -> None:
        for flavour in Flavour:
            async with OpenAiSim(flavour, brain=BRAIN) as sim:
                base = f"{sim.url}/v1" if flavour is Flavour.OPENAI else f"{sim.url}/openai/v1"
                async with openai.AsyncOpenAI(api_key="sim-key", base_url=base, max_retries=0) as one:
                    assert (await talk(one, sim)).text == TEXT

    run(main)


@ALL
def test_limits_are_counted_told_and_kept(flavour: Flavour) -> None:
    async def main() -> None:
        meter = RateMeter(flavour, requests=100, tokens=1000)
        async with OpenAiSim(flavour, brain=BRAIN, meter=meter) as sim, client(sim) as one:
            request = {"model": CHAT_MODEL[flavour], "messages": USER, "max_tokens": 900, "stream": True}
            answer = await one.chat.completions.with_raw_response.create(**request)
            async for _ in await _parsed(answer):
                pass
            assert answer.headers["x-ratelimit-remaining-requests"] == "99"
            assert int(answer.headers["x-ratelimit-remaining-tokens"]) < 100
            if flavour is not Flavour.AZURE:
                assert answer.headers["x-ratelimit-limit-tokens"] == "1000"
                # 900 of 1000 tokens in a minute; one request of 100 in a minute, or in a day.
                assert answer.headers["x-ratelimit-reset-tokens"].startswith("54.")
            if flavour is Flavour.GROQ:
                assert answer.headers["x-ratelimit-reset-requests"] == "14m24.00s"
            with pytest.raises(sdk(flavour).RateLimitError) as raised:
                await talk(one, sim, max_tokens=900)
            assert 40 < int(raised.value.response.headers["retry-after"]) < 60

    run(main)


async def _parsed(answer: Any) -> Any:
    parsed = answer.parse()
    return await parsed if asyncio.iscoroutine(parsed) else parsed


@pytest.mark.parametrize(
    ("seconds", "flavour", "text"),
    [
        (0.35, Flavour.OPENAI, "350ms"), (1.0, Flavour.OPENAI, "1s"), (360, Flavour.OPENAI, "6m0s"),
        (8.64, Flavour.OPENAI, "8.64s"), (179.56, Flavour.GROQ, "2m59.56s"), (7.66, Flavour.GROQ, "7.66s"),
    ],
)  # fmt: skip
def test_durations_are_written_as_the_vendors_do(seconds: float, flavour: Flavour, text: str) -> None:
    assert duration(seconds, flavour) == text


def test_the_scripted_reply_is_that_of_the_tone_code() -> None:
    async def main() -> None:
        async with OpenAiSim(Flavour.GROQ, brain=ScriptedBrain()) as sim, client(sim) as one:
            # The examples of docs/tone-code.md.
            for heard, code in (
                ("turn 3 of +15552000012", "12 3 4210"),
                ("turn 1 of +15552000000", "0 1 8901"),
                ("turn 17 of +15552009999", "9999 17 39305"),
            ):
                said = (await talk(one, sim, messages=[*USER, {"role": "user", "content": heard}])).text
                assert said == f"code {code}, this is the scripted reply that the generator takes apart"

    run(main)


def test_a_brownout_is_slow_and_silent_by_its_shares_and_counts_it() -> None:
    async def main() -> None:
        profile = replace(PROFILES["instant"], slow_share=0.2, slow_ms=20, hung_share=0.2, hung_after_tokens=1)
        async with OpenAiSim(Flavour.OPENAI, brain=BRAIN, profile=profile) as sim, client(sim, read_s=0.1) as one:
            hung = 0
            for _ in range(30):
                try:
                    await talk(one, sim)
                except openai.APITimeoutError:
                    hung += 1
            assert 0 < hung < 20
            assert sim.faults.injected["silence"] == hung
            assert 0 < sim.faults.injected["slow_first_token"] < 20

    run(main)


def test_an_idle_connection_is_closed_after_its_time() -> None:
    async def main() -> None:
        async with OpenAiSim(Flavour.OPENAI, keep_alive_s=0.1) as sim:
            reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
            writer.write(b"GET /v1/models HTTP/1.1\r\nhost: sim\r\nauthorization: Bearer sim-key\r\n\r\n")
            begun = time.monotonic()
            assert b"gpt-4o-mini" in await reader.read()  # to the end of the connection
            assert time.monotonic() - begun < 2
            writer.close()

    run(main)


def test_the_other_manners_of_a_stream() -> None:
    async def main() -> None:
        async with OpenAiSim(Flavour.OPENAI, brain=BRAIN) as sim, client(sim) as one:
            sim.style = Style(double_finish=True)
            assert (await talk(one, sim)).finish == ["stop", "stop"]
            chunks = (await talk(one, sim)).chunks
            assert all(chunk.obfuscation for chunk in chunks)
            bare = await talk(one, sim, stream_options={"include_obfuscation": False})
            assert not any(getattr(chunk, "obfuscation", None) for chunk in bare.chunks)
            # The head first, then the wait: the client has its stream at once.
            sim.style = Style()
            for early, waits in ((True, False), (False, True)):
                sim.inject("slow_first_token", delay_ms=200, early_head=early)
                begun = time.monotonic()
                stream = await one.chat.completions.create(model=CHAT_MODEL[sim.flavour], messages=USER, stream=True)
                assert (time.monotonic() - begun >= 0.19) is waits
                assert len([chunk async for chunk in stream]) > 5
                assert time.monotonic() - begun >= 0.19
        # Azure's filter waits for 10 tokens and lets them go together.
        words = FixtureBrain({}, "word " * 30)
        profile = replace(PROFILES["instant"], tokens_per_s=100)
        lumpy = Style(burst_tokens=10)
        async with OpenAiSim(Flavour.AZURE, brain=words, profile=profile, style=lumpy) as sim, client(sim) as one:
            begun = time.monotonic()
            times = []
            request = {"model": CHAT_MODEL[sim.flavour], "messages": USER, "stream": True}
            async for chunk in await one.chat.completions.create(**request):
                if chunk.choices and chunk.choices[0].delta.content:
                    times.append(time.monotonic() - begun)
            assert times[0] > 0.08
            gaps = sorted(after - before for before, after in itertools.pairwise(times))
            assert gaps[-2] > 0.05  # two waits between three bursts
            assert gaps[-4] < 0.03

    run(main)
