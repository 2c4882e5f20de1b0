"""The simulated receptionist holds the demo's conversations; the simulator as a process, under orders."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml

from bench.sim.openai import ClinicBrain, Flavour, OpenAiSim
from bench.sim.openai.control import Control
from tests.bench.openai_client import CHAT_MODEL, client, run, talk, tool

ROOT = Path(__file__).parent.parent.parent
DEMO = yaml.safe_load((ROOT / "bench/demo/calls.yaml").read_text())
SAYS = [[(turn["say"], turn.get("expect", [""])) for turn in call.get("turns", [])] for call in DEMO["calls"]]
SAYS += [[(turn["text"], turn.get("expect", [""]))] for turn in DEMO["recordings"]["asterisk"]]


@pytest.mark.parametrize("turns", [turns for turns in SAYS if turns], ids=lambda turns: turns[0][0][:30])
def test_the_demo_gets_the_answers_that_it_expects(turns: list[tuple[str, list[str]]]) -> None:
    messages: list[dict[str, Any]] = [{"role": "system", "content": "You are the receptionist."}]
    answer = None
    for say, expect in turns:
        messages.append({"role": "user", "content": say})
        answer = ClinicBrain().answer({"messages": messages, "tools": [tool("end_call")]})
        assert any(word.lower() in answer.text.lower() for word in expect), (say, answer)
        assert [call.name for call in answer.calls] == (["end_call"] if "Goodbye" in answer.text else [])
        messages.append({"role": "assistant", "content": answer.text})


BOOK = ["I need an appointment", "a filling", "on Friday"]


@pytest.mark.parametrize(
    ("says", "word"),
    [
        (["I want a cleaning on Monday at ten"], "name"),
        ([*BOOK, "how much is it?"], "from 140, and whitening 250. And at what time"),
        ([*BOOK, "the weather is nice"], "We start at nine"),
        ([*BOOK, "at nine", "Ann Lee", "no, on Monday please"], "And at what time"),
        ([*BOOK, "never mind"], "not booked"),
        ([*BOOK, "thanks, bye"], "Goodbye"),
        (["purple", "purple"], "call you back"),
        (["purple", "Where are you?", "purple"], "did not understand"),
        (["Hello!"], "How can I help"),
    ],
)
def test_the_receptionist_off_the_beaten_track(says: list[str], word: str) -> None:
    answer = ClinicBrain().answer({"messages": [{"role": "user", "content": say} for say in says]})
    assert word in answer.text
    assert answer.calls == ()  # no tool was offered


def test_a_goodbye_calls_the_tool_through_the_sdk_and_ends_the_round() -> None:
    async def main() -> None:
        async with OpenAiSim(Flavour.GROQ, brain=ClinicBrain()) as sim, client(sim) as one:
            asked: list[dict[str, Any]] = [{"role": "user", "content": "That is all, goodbye."}]
            tools = [tool("end_call")]
            heard = await talk(one, sim, messages=asked, tools=tools)
            assert heard.text == "Thank you for calling Harbour Dental. Goodbye."
            assert heard.calls == {0: ["end_call", "{}"]}
            assert heard.reasoning
            assert (await talk(one, sim, messages=asked, tools=tools, tool_choice="none")).calls == {}
            call = {"id": heard.ids[0], "type": "function", "function": {"name": "end_call", "arguments": "{}"}}
            asked.append({"role": "assistant", "content": heard.text, "tool_calls": [call]})
            asked.append({"role": "tool", "tool_call_id": heard.ids[0], "content": "ok"})
            assert (await talk(one, sim, messages=asked, tools=tools)).text == ""

    run(main)


def test_orders_over_http() -> None:
    async def main() -> None:
        async with (
            OpenAiSim(Flavour.OPENAI) as sim,
            Control(sim) as control,
            client(sim) as one,
            httpx.AsyncClient(base_url=control.url) as orders,
        ):
            await orders.post("/faults", json={"kind": "overloaded", "times": 2})
            for _ in range(2):
                with pytest.raises(openai.InternalServerError):
                    await talk(one, sim)
            await talk(one, sim)
            state = (await orders.get("/state")).json()
            assert (state["injected"], state["waiting"], state["requests"]) == ({"overloaded": 2}, [], 3)
            seen = (await orders.get("/seen", params={"route": "chat"})).json()
            assert [one["fault"] for one in seen] == ["overloaded", "overloaded", ""]
            assert seen[0]["headers"]["authorization"] == "Bearer sim-key"
            for wrong in ({"kind": "tired"}, {"kind": "close", "often": True}, {}):
                assert (await orders.post("/faults", json=wrong)).status_code == 400
            assert (await orders.get("/secrets")).status_code == 404
            assert (await orders.post("/down", json={})).json()["up"] is False
            with pytest.raises(openai.APIConnectionError):
                await talk(one, sim)
            assert (await orders.post("/up")).json()["up"] is True
            await orders.post("/keys", json={"keys": ["other"]})
            with pytest.raises(openai.AuthenticationError):
                await talk(one, sim)

    run(main)


def test_it_runs_as_a_process_of_its_own_and_ends_with_its_parent() -> None:
    async def main() -> None:
        command = [sys.executable, "-m", "bench.sim.openai", "--flavour", "azure", "--profile", "fast", "--until-stdin"]
        process = await asyncio.create_subprocess_exec(
            *command, "--brain", "scripted", cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            where = json.loads(await process.stdout.readline())
            base = f"{where['url']}/openai/v1"
            async with openai.AsyncOpenAI(api_key="sim-key", base_url=base, max_retries=0) as one:
                message: Any = {"role": "user", "content": "turn 1 of +15552000000"}
                answer = await one.chat.completions.create(model=CHAT_MODEL[Flavour.AZURE], messages=[message])
            assert (answer.choices[0].message.content or "").startswith("code 0 1 8901,")
            process.stdin.close()
            assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    run(main)
