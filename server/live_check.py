"""`talkspurt doctor --live PROVIDER`: does the service answer, how fast, and does it have what calls use?

    ok     azure-stt      reached, 83 ms, en-US found
    ok     azure-tts      reached, 121 ms, en-US-AvaMultilingualNeural found
    ok     azure-tts      agent reception, tts.voice: reached, 12 ms, en-US-JennyNeural found
    WRONG  groq           status 401: the key is not accepted; check GROQ_API_KEY

First what the account has by default, then what each agent of AGENTS_DIR names of it (server/live_agents.py), of
services that were reached. Asks for little: a short clause, a few tokens, the list of models. Never shows a key.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from providers.azure.options import AzureSpeechOptions
from providers.check import Check, Checked
from providers.observer import Unobserved
from server.agent.importer import AgentFileError
from server.catalogue import NEEDS, Catalogue, azure_options
from server.config import Config
from server.errors import ConfigError
from server.live_agents import LookUp, look_ups
from server.live_hint import Account, explain
from server.live_probe import Probe, find_voice, hear, patiently, speak
from server.logs import redact
from server.store.agents import read_folder

LANGUAGE = "en-US"


def run(config: Config, account: str) -> int:
    """Probe one account, print a line for each of its services. Returns 0 when all is well, else 1."""
    return asyncio.run(_run(config, account))


async def _run(config: Config, account: str) -> int:
    catalogue = Catalogue(config.providers, Unobserved())
    try:
        if not _is_configured(config, account):
            print(f"{'WRONG':<6} {account:<14} not configured; set {NEEDS[account]}", flush=True)
            return 1
        is_well, reached = True, dict[str, str]()
        for name, url, probe in _probes(config, catalogue, account):
            one = await patiently(name, url, probe)
            _print(name, _line(one, name, _account(config, account, name)), is_well=one.is_well)
            is_well &= one.is_well
            if one.is_reached:
                reached[name] = url
        return 0 if await _agents(config, catalogue, account, reached) and is_well else 1
    finally:
        await catalogue.aclose()


async def _agents(config: Config, catalogue: Catalogue, account: str, reached: dict[str, str]) -> bool:
    """A line for each name that an agent has for this account, of the services that were `reached`: name -> address."""
    try:
        found = list(look_ups(read_folder(config.store.agents_dir), config.providers, account))
    except (AgentFileError, ConfigError) as error:
        _print("agents", str(error), is_well=False)
        return False
    is_well, known = True, dict[LookUp, Check]()
    for one, where in found:
        if one.service not in reached:
            continue
        if one not in known:
            known[one] = await patiently(one.service, reached[one.service], one.probe(catalogue, config.providers))
        check = known[one]
        about = replace(_account(config, account, one.service), models={one.service: where.setting})
        line = _line(check, one.service, about)
        _print(one.service, f"agent {where.slug}, {where.setting}: {line}", is_well=check.is_well)
        is_well &= check.is_well
    return is_well


def _print(name: str, text: str, *, is_well: bool) -> None:
    print(f"{'ok' if is_well else 'WRONG':<6} {name:<14} {redact(text)}", flush=True)


def _is_configured(config: Config, account: str) -> bool:
    providers = config.providers
    return {
        "azure": providers.azure_speech.is_configured,
        "openai": providers.openai.is_configured,
        "groq": providers.groq.is_configured,
        "azure-openai": providers.azure_openai.is_configured,
        "compatible": providers.compatible.is_configured,
    }[account]


def _account(config: Config, account: str, name: str) -> Account:
    """The variables that a hint may name about the service `name`."""
    if account == "azure":
        azure, of_key = config.providers.azure_speech, "_2" if name.startswith("azure-2") else ""
        of_place = of_key if azure.region_2 or azure.endpoint_2 else ""
        region = azure.region_2 if of_place else azure.region
        address = f"AZURE_SPEECH_REGION{of_place} ({region})" if region else f"AZURE_SPEECH_ENDPOINT{of_place}"
        return Account(f"AZURE_SPEECH_KEY{of_key}", address, {}, region)
    if account == "azure-openai":
        models = {"azure-openai": "AZURE_OPENAI_DEPLOYMENT"}
        return Account("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT", models)
    prefix = account.upper()
    models = {
        account: f"{prefix}_MODEL",
        f"{account}-stt": f"{prefix}_STT_MODEL",
        f"{account}-tts": f"{prefix}_TTS_MODEL",
    }
    return Account(f"{prefix}_API_KEY", f"{prefix}_BASE_URL", models)


def _probes(config: Config, catalogue: Catalogue, account: str) -> list[tuple[str, str, Probe]]:
    """(name, where its service is, the probe) of each service of the account."""
    providers = config.providers
    if account == "azure":
        azure = providers.azure_speech
        found = _azure("azure", azure_options(azure), catalogue)
        return found + (_azure("azure-2", azure_options(azure.second, "_2"), catalogue) if azure.second else [])
    url = {
        "openai": providers.openai.base_url,
        "groq": providers.groq.base_url,
        "azure-openai": providers.azure_openai.endpoint,
        "compatible": providers.compatible.base_url,
    }[account]
    asked: list[tuple[str, object]] = [(account, catalogue.model(account))]
    if account in ("openai", "groq"):
        asked.append((f"{account}-stt", catalogue.transcriber(f"{account}-stt")))
        asked.append((f"{account}-tts", catalogue.synthesizer(f"{account}-tts")))
    # Their adapters know how to probe themselves.
    return [(name, url, one.check) for name, one in asked if isinstance(one, Checked)]


def _azure(name: str, options: AzureSpeechOptions, catalogue: Catalogue) -> list[tuple[str, str, Probe]]:
    heard_at = f"https://{options.region}.stt.speech.microsoft.com" if options.region else options.endpoint
    return [
        (f"{name}-stt", heard_at, lambda: hear(catalogue.transcriber(name), LANGUAGE)),
        (f"{name}-tts", options.synthesis_url, lambda: speak(catalogue.synthesizer(name), LANGUAGE)),
        (f"{name}-voices", options.synthesis_url, lambda: find_voice(options, LANGUAGE)),
    ]


def _line(check: Check, name: str, account: Account) -> str:
    if check.failure is not None:
        return explain(check.failure, name, account)
    if check.problem:
        variable = account.models.get(name, "") if check.is_found is False else ""
        return f"{check.problem}; check {variable}" if variable else check.problem
    reached = "reached" if check.latency_ms is None else f"reached, {check.latency_ms:.0f} ms"
    found = f", {check.wanted} found" if check.is_found else f", {check.wanted} not looked up" if check.wanted else ""
    return reached + found
