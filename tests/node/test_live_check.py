"""`talkspurt doctor --live`, as a process against the simulators: each failure is one line that says what to do."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.sim.azure import AzureSim
from bench.sim.openai import Flavour, OpenAiSim
from bench.sim.process import AZURE_KEY, CHAT_KEY, ProviderProcesses
from server.catalogue import NEEDS
from server.config import VARIABLES, Config
from server.live_probe import CONNECT_S, PATIENT_S
from tests.node.test_doctor import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(120)]

NOBODY = "http://localhost:1"
START_S = 15.0
"""Of Python and the SDKs, on a busy machine."""

Lines = dict[str, tuple[str, str]]


async def doctor(account: str, env: Mapping[str, str]) -> tuple[int, Lines]:
    """The exit status, and probe -> (verdict, what is said)."""
    status, lines = await printed(account, env)
    return status, {line[7:21].strip(): (line[:6].strip(), line[22:]) for line in lines}


async def printed(account: str, env: Mapping[str, str]) -> tuple[int, list[str]]:
    clean = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "server", "doctor", "--live", account,
        cwd=ROOT, env={**clean, **env}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, errors = await process.communicate()
    assert errors == b""
    lines = out.decode().splitlines()
    assert all(line[:6] in ("ok    ", "WRONG ") for line in lines), "one line for each probe"
    return process.returncode or 0, lines


def with_sims(body: Callable[[ProviderProcesses], Awaitable[None]]) -> None:
    async def main() -> None:
        async with ProviderProcesses(profile="fast") as sims:
            await body(sims)

    asyncio.run(main())


async def order(method: str, url: str, body: Any = None) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
        assert (await http.request(method, url, json=body)).status_code < 300


def test_all_is_well() -> None:
    async def body(sims: ProviderProcesses) -> None:
        for account, probes in (
            ("azure", ["azure-stt", "azure-tts", "azure-voices"]),
            ("groq", ["groq", "groq-stt", "groq-tts"]),
            ("openai", ["openai", "openai-stt", "openai-tts"]),
        ):
            status, found = await doctor(account, sims.env)
            assert status == 0 and list(found) == probes, found
            assert all(verdict == "ok" and "found" in text for verdict, text in found.values()), found
        # The path that other clients want is taken off: the SDK adds it.
        status, found = await doctor("groq", sims.env | {"GROQ_BASE_URL": f"{sims.env['GROQ_BASE_URL']}/openai/v1/"})
        assert status == 0, found

    with_sims(body)


AGENTS = {
    # Everything is there, in another place for each channel.
    "bright": """
language: en-US
stt: {provider: azure, model: 0f7ab9c2, fallbacks: [groq-stt/whisper-large-v3, openai-stt]}
llm: {provider: groq, model: openai/gpt-oss-120b, fallbacks: [openai/gpt-4.1-mini, openai]}
tts: {provider: azure, voice: en-US-JennyNeural, style: cheerful, fallbacks: [openai-tts/nova, groq-tts/troy]}
channels:
  browser: {language: es-MX, stt: {model: ""}, tts: {voice: "", style: "", fallbacks: [openai-tts/nova, groq-tts]}}
""",
    # Nothing is.
    "dim": """
language: de-DE
stt: {provider: openai-stt, model: whisper-9, fallbacks: [groq-stt/whisper-9]}
llm: {provider: openai, model: nothing-7b, fallbacks: [groq/nothing-7b]}
tts: {provider: openai-tts, voice: nobody, fallbacks: [azure/en-US-NoNeural, azure/fr-FR-DeniseNeural, groq-tts/nova]}
channels:
  browser: {tts: {provider: azure, voice: de-DE-KatjaNeural, style: cheerful, fallbacks: []}}
  telnyx: {language: ja-JP, tts: {provider: azure, voice: "", fallbacks: []}}
""",
    "local": "stt: {provider: moonshine}",
}
OF_AGENTS: dict[str, list[str]] = {
    "azure": [
        "ok azure-stt agent bright, stt.model: reached, # ms, en-US by 0f7ab9c2 found",
        "ok azure-tts agent bright, tts.voice: reached, # ms, en-US-JennyNeural found",
        "ok azure-stt agent bright, language: reached, # ms, es-MX found",
        "ok azure-tts agent bright, language: reached, # ms, es-MX-DaliaNeural found",
        "WRONG azure-tts agent dim, tts.fallbacks[0]: voice en-US-NoNeural is not among the 32 of this region; "
        "check tts.fallbacks[0]",
        "WRONG azure-tts agent dim, tts.fallbacks[1]: voice fr-FR-DeniseNeural speaks fr-FR, not de-DE",
        "WRONG azure-tts agent dim, language: voice ja-JP-NanamiNeural is not among the 32 of this region; "
        "check language",
        "WRONG azure-tts agent dim, tts.voice: voice de-DE-KatjaNeural has no style cheerful",
    ],
    "groq": [
        "ok groq-stt agent bright, stt.fallbacks[0]: reached, # ms, whisper-large-v3 found",
        "ok groq agent bright, llm.model: reached, # ms, openai/gpt-oss-120b found",
        "ok groq-tts agent bright, tts.fallbacks[1]: reached, # ms, troy found",
        "WRONG groq-stt agent dim, stt.fallbacks[0]: model whisper-9 is not on the account's list of 6; "
        "check stt.fallbacks[0]",
        "WRONG groq agent dim, llm.fallbacks[0]: model nothing-7b is not on the account's list of 6; "
        "check llm.fallbacks[0]",
        "WRONG groq-tts agent dim, tts.fallbacks[2]: status 400 invalid_value: 'voice' must be one of ['austin', "
        "'autumn', 'daniel', 'diana', 'hannah', 'troy'] (request req_…; check tts.fallbacks[2]",
    ],
    "openai": [
        "ok openai agent bright, llm.fallbacks[0]: reached, # ms, gpt-4.1-mini found",
        "ok openai-tts agent bright, tts.fallbacks[0]: reached, # ms, nova found",
        "WRONG openai-stt agent dim, stt.model: model whisper-9 is not on the account's list of 10; check stt.model",
        "WRONG openai agent dim, llm.model: model nothing-7b is not on the account's list of 10; check llm.model",
        "WRONG openai-tts agent dim, tts.voice: status 400 invalid_value: 'voice' must be one of ['alloy', 'ash', "
        "'ballad', 'cedar', 'coral', 'echo', 'fable', 'marin',…; check tts.voice",
    ],
}


def write_agents(folder: Path, agents: Mapping[str, str]) -> dict[str, str]:
    folder.mkdir()
    for slug, text in agents.items():
        (folder / f"{slug}.yaml").write_text(text)
    return {"AGENTS_DIR": str(folder)}


def of_agents(lines: list[str]) -> list[str]:
    return [" ".join(re.sub(r"\d+ ms", "# ms", line).split()) for line in lines if line[22:].startswith("agent ")]


def test_what_each_agent_names_is_looked_up(tmp_path: Path) -> None:
    own = write_agents(tmp_path / "agents", AGENTS)

    async def body(sims: ProviderProcesses) -> None:
        for account, expected in OF_AGENTS.items():
            status, lines = await printed(account, sims.env | own)
            assert status == 1 and len(lines) == 3 + len(expected)
            assert of_agents(lines) == expected
        # Nothing more is said of a service that cannot be reached.
        _, lines = await printed("groq", {**sims.env, **own, "GROQ_API_KEY": "wrong-key-0123"})
        assert len(lines) == 3
        # A variable takes the agent's provider's place, and nothing of that one's is asked for.
        _, lines = await printed("openai", {**sims.env, **own, "TTS_PROVIDER": "pico", "LLM_PROVIDER": "openai"})
        asked = [line.partition(": ")[0].split("agent ")[1] for line in of_agents(lines)]
        assert asked == ["bright, llm.fallbacks[0]", "bright, tts.fallbacks[0]", "dim, stt.model", "dim, llm.model"]

    with_sims(body)


def test_the_account_that_stands_in_for_azure_is_asked_the_same(tmp_path: Path) -> None:
    """A voice that only its region does not have would be missed on the day that it is needed."""
    agent = "tts: {provider: azure, voice: en-US-NoNeural}\nstt: {provider: azure}"
    own = write_agents(tmp_path / "agents", {"one": agent})

    async def body() -> None:
        first, second = (AzureSim(keys=frozenset({key})) for key in ("first-key-0123", "second-key-0123"))
        async with first, second:
            env = {
                "AZURE_SPEECH_KEY": first.key, "AZURE_SPEECH_ENDPOINT": first.host,
                "AZURE_SPEECH_KEY_2": second.key, "AZURE_SPEECH_ENDPOINT_2": second.host, **own,
            }  # fmt: skip
            status, lines = await printed("azure", env)
            services = ["azure-stt", "azure-tts", "azure-voices", "azure-2-stt", "azure-2-tts", "azure-2-voices"]
            assert status == 1 and [line[7:21].strip() for line in lines[:6]] == services
            assert all(line.startswith("ok ") for line in lines[:6])
            missing = "agent one, tts.voice: voice en-US-NoNeural is not among the 32 of this region; check tts.voice"
            assert of_agents(lines) == [
                "ok azure-stt agent one, language: reached, # ms, en-US found",
                "ok azure-2-stt agent one, language: reached, # ms, en-US found",
                f"WRONG azure-tts {missing}", f"WRONG azure-2-tts {missing}",
            ]  # fmt: skip
            status, found = await doctor("azure", env | {"AZURE_SPEECH_KEY_2": "wrong-key-0123"})
            says = "check AZURE_SPEECH_KEY_2, and that it belongs to AZURE_SPEECH_ENDPOINT_2"
            assert status == 1 and found["azure-2-voices"][1] == f"status 401: the key is not accepted; {says}"

    asyncio.run(body())


def test_agents_that_cannot_be_read_are_wrong_and_the_account_is_probed_all_the_same(tmp_path: Path) -> None:
    own = write_agents(tmp_path / "agents", {"one": "llm: {provider: groq, fallbacks: [groq]}"})

    async def body(sims: ProviderProcesses) -> None:
        status, found = await doctor("groq", sims.env | own)
        assert status == 1 and list(found) == ["groq", "groq-stt", "groq-tts", "agents"]
        says = "agent one: llm.fallbacks[0]: expected another one than llm.provider, got 'groq'"
        assert found["agents"] == ("WRONG", says)

    with_sims(body)


@pytest.mark.parametrize("account", ["azure-openai", "compatible"])
def test_one_model_and_no_more(account: str, tmp_path: Path) -> None:
    flavour = Flavour.AZURE if account == "azure-openai" else Flavour.OPENAI
    agent = f"llm: {{provider: {account}, model: gpt-5-mini, fallbacks: [{account}/nothing-7b]}}"
    own = write_agents(tmp_path / "agents", {"one": agent})
    key, address, model = (
        ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_DEPLOYMENT")
        if account == "azure-openai"
        else ("COMPATIBLE_API_KEY", "COMPATIBLE_BASE_URL", "COMPATIBLE_MODEL")
    )

    async def body() -> None:
        async with OpenAiSim(flavour, keys=(CHAT_KEY,)) as sim:
            env = {key: CHAT_KEY, address: sim.base_url, model: "gpt-4o-mini"}
            status, found = await doctor(account, env)
            assert status == 0 and list(found) == [account]
            assert found[account][0] == "ok" and found[account][1].endswith("ms, gpt-4o-mini found")
            # Deployments are on no list: a few tokens show that there is one.
            assert len(sim.log.of("chat")) == (1 if account == "azure-openai" else 0)

            status, lines = await printed(account, env | own)
            found_, missing = of_agents(lines)
            assert found_ == f"ok {account} agent one, llm.model: reached, # ms, gpt-5-mini found"
            assert missing.startswith(f"WRONG {account} agent one, llm.fallbacks[0]: ")
            assert "nothing-7b" in missing and "check llm.fallbacks[0]" in missing
            assert status == 1

            status, found = await doctor(account, env | {key: "wrong-key-0123"})
            assert status == 1 and found[account][1].startswith("status 401: the key is not accepted; check " + key)
            status, found = await doctor(account, env | {model: "nothing-7b"})
            assert status == 1 and "nothing-7b" in found[account][1] and f"check {model}" in found[account][1]
            status, found = await doctor(account, env | {address: NOBODY})
            assert found[account][1] == f"not reachable: localhost:1 refused the connection; check {address}"
            for route in ("models", "chat"):
                sim.inject("overloaded", route=route, times=None)
            status, found = await doctor(account, env)
            assert found[account][1].startswith("status 503: the service fails; look at the vendor's status page")

    asyncio.run(body())


@pytest.mark.parametrize(("account", "variable"), list(NEEDS.items())[-2:])
def test_an_account_that_is_not_there(account: str, variable: str) -> None:
    status, found = asyncio.run(doctor(account, {}))
    assert (status, found) == (1, {account: ("WRONG", f"not configured; set {variable}")})


def test_chat_services_say_what_is_wrong() -> None:
    async def body(sims: ProviderProcesses) -> None:
        control = sims.controls["groq"]

        async def groq(fault: str, **changes: str) -> Lines:
            await order("DELETE", f"{control}/faults")
            if fault:
                await order("POST", f"{control}/faults", {"kind": fault, "route": "models", "times": None})
            status, found = await doctor("groq", {**sims.env, **changes})
            assert status == 1
            return found

        found = await groq("", GROQ_API_KEY="wrong-key-0123")
        for verdict, text in found.values():
            assert (verdict, text) == ("WRONG", "status 401: the key is not accepted; check GROQ_API_KEY")
        for fault, says in (
            ("forbidden", "status 403: forbidden; the key is known: check the account's rights, whether it may use "
                          "GROQ_STT_MODEL, its firewall rules and the countries that it may be used from"),
            ("insufficient_quota", "status 429: the quota is used up; check the account's plan and credit"),
            ("rate_limit", "status 429: too many requests for the account's quota; wait, or have the limit raised"),
            ("overloaded", "status 503: the service fails; look at the vendor's status page, try later"),
        ):  # fmt: skip
            found = await groq(fault)
            assert found["groq-stt"] == ("WRONG", says)
        found = await groq("reset")
        assert "the connection broke: check GROQ_BASE_URL and proxies in between" in found["groq-stt"][1]
        found = await groq("", GROQ_MODEL="nothing-7b")
        assert found["groq"][1] == "model nothing-7b is not on the account's list of 6; check GROQ_MODEL"
        assert found["groq-stt"][0] == "ok"
        found = await groq("", GROQ_BASE_URL=f"{sims.env['GROQ_BASE_URL']}/elsewhere")
        assert "status 404" in found["groq"][1] and "check GROQ_MODEL and GROQ_BASE_URL" in found["groq"][1]

    with_sims(body)


def test_azure_speech_says_what_is_wrong() -> None:
    async def body(sims: ProviderProcesses) -> None:
        async def azure(**fault: Any) -> Lines:
            await order("DELETE", f"{sims.azure_url}/sim/faults")
            for service in ("stt", "tts", "voices"):
                await sims.fault_azure(on=service, times=None, **fault)
            status, found = await doctor("azure", sims.env)
            assert status == 1 and len(found) == 3
            return found

        _, found = await doctor("azure", sims.env | {"AZURE_SPEECH_KEY": "wrong-key-0123"})
        says = (
            "status 401: the key is not accepted; check AZURE_SPEECH_KEY, and that it belongs to AZURE_SPEECH_ENDPOINT"
        )
        assert list(found.values()) == [("WRONG", says)] * 3
        for fault, says in (
            (
                {"status": 403},
                "status 403: forbidden; the key is known: check the account's rights, its firewall rules",
            ),
            ({"status": 429}, "status 429: too many requests for the account's quota"),
            ({"status": 404}, "no such service at this address: check AZURE_SPEECH_ENDPOINT"),
        ):
            found = await azure(kind="http", **fault)
            assert all(says in text for _, text in found.values()), found
        began_s = time.monotonic()
        found = await azure(kind="hold")
        assert all("reached but silent: check AZURE_SPEECH_ENDPOINT" in text for _, text in found.values()), found
        assert time.monotonic() - began_s < 3 * PATIENT_S + START_S

    with_sims(body)


@pytest.mark.parametrize(
    ("account", "env", "says"),
    [
        (
            "azure",
            {"AZURE_SPEECH_KEY": AZURE_KEY, "AZURE_SPEECH_ENDPOINT": NOBODY.replace("http", "ws")},
            "not reachable: localhost:1 refused the connection; check AZURE_SPEECH_ENDPOINT",
        ),
        (
            "azure",
            {"AZURE_SPEECH_KEY": AZURE_KEY, "AZURE_SPEECH_REGION": "middleearth"},
            "there is no region middleearth, or no name service; check AZURE_SPEECH_REGION (middleearth)",
        ),
        (
            "groq",
            {"GROQ_API_KEY": CHAT_KEY, "GROQ_BASE_URL": NOBODY},
            "not reachable: localhost:1 refused the connection; check GROQ_BASE_URL",
        ),
        (
            "openai",
            {"OPENAI_API_KEY": CHAT_KEY, "OPENAI_BASE_URL": "http://nobody.invalid/v1"},
            "not reachable: no address for nobody.invalid; check OPENAI_BASE_URL",
        ),
    ],
)
def test_what_cannot_be_reached_is_said_at_once(account: str, env: dict[str, str], says: str) -> None:
    began_s = time.monotonic()
    status, found = asyncio.run(doctor(account, env))
    assert time.monotonic() - began_s < CONNECT_S + START_S
    assert status == 1 and len(found) == 3
    assert all(verdict == "WRONG" and says in text for verdict, text in found.values()), found


def test_an_endpoint_with_a_path_names_its_variable() -> None:
    done = asyncio.run(_refused({"AZURE_SPEECH_KEY": AZURE_KEY, "AZURE_SPEECH_ENDPOINT": "wss://a.example.com/path"}))
    assert done.startswith("talkspurt: AZURE_SPEECH_ENDPOINT: expected an address without a path")


async def _refused(env: Mapping[str, str]) -> str:
    clean = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "server", "doctor", "--live", "azure",
        cwd=ROOT, env={**clean, **env}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, errors = await process.communicate()
    assert process.returncode == 2 and errors.count(b"\n") == 1
    return errors.decode()


def test_groqs_address_with_the_path_of_other_clients() -> None:
    for given in ("https://api.groq.com", "https://api.groq.com/openai/v1", "https://api.groq.com/openai/v1/"):
        assert Config.from_env({"GROQ_BASE_URL": given}).providers.groq.base_url == "https://api.groq.com"
