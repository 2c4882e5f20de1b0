"""`talkspurt doctor --live`, as a process against the simulators: each failure is one line that says what to do."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx
import pytest

from bench.sim.process import AZURE_KEY, CHAT_KEY, ProviderProcesses
from server.config import VARIABLES, Config
from server.live_check import CONNECT_S, PATIENT_S
from tests.node.test_doctor import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(120)]

NOBODY = "http://localhost:1"
START_S = 15.0
"""Of Python and the SDKs, on a busy machine."""

Lines = dict[str, tuple[str, str]]


async def doctor(account: str, env: Mapping[str, str]) -> tuple[int, Lines]:
    """The exit status, and probe -> (verdict, what is said)."""
    clean = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "server", "doctor", "--live", account,
        cwd=ROOT, env={**clean, **env}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, errors = await process.communicate()
    assert errors == b""
    lines = out.decode().splitlines()
    assert all(line[:6] in ("ok    ", "WRONG ") for line in lines), "one line for each probe"
    return process.returncode or 0, {line[7:21].strip(): (line[:6].strip(), line[22:]) for line in lines}


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
