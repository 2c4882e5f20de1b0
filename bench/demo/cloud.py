"""The demo's callers against cloud providers, played by simulators: the same conversations through the real SDKs.

Two receptionists whose recogniser and voice are Azure's: one thinks with Groq, one with OpenAI, and each has the other
as its fallback. Every call is placed to both. They name a model, a voice and a style, which only the provider that they
name has: a fallback that is asked for them refuses.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import yaml

from bench.demo.book import book_of
from bench.demo.script import PlannedCall
from bench.sim.process import ROOT

AGENT = ROOT / "agents" / "clinic_en.yaml"
MODELS = {"+15550100": ("groq", "openai"), "+15550101": ("openai", "groq")}
NAMED = {"groq": "openai/gpt-oss-120b", "openai": "gpt-4.1-mini"}
VOICE = {"voice": "en-US-JennyNeural", "style": "customerservice"}


def write_agents(folder: Path) -> Path:
    """The clinic once for each model, with cloud providers; returns the folder for AGENTS_DIR."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.yaml"):
        old.unlink()
    for number, (model, other) in MODELS.items():
        agent = yaml.safe_load(AGENT.read_text())
        agent |= {
            "numbers": [number],
            "name": f"{agent['name']} by {model}",
            "stt": {**agent["stt"], "provider": "azure"},
            "llm": {"provider": model, "model": NAMED[model], "fallbacks": [other]},
            "tts": {"provider": "azure", **VOICE, "fallbacks": ["openai-tts"]},
        }
        del agent["script"]
        (folder / f"clinic_{model}.yaml").write_text(yaml.safe_dump(agent, allow_unicode=True))
    return folder


def write_book(calls: list[PlannedCall], path: Path) -> Path:
    """What the simulated recognisers know: the callers' clips."""
    path.parent.mkdir(parents=True, exist_ok=True)
    book_of(calls).save(path)
    return path


def for_each_model(calls: list[PlannedCall]) -> list[tuple[PlannedCall, str]]:
    """Every call to every receptionist: (call, number)."""
    return [
        (dataclasses.replace(call, name=f"{call.name}-{model}", title=f"{call.title}; Azure speech, {model}"), number)
        for number, (model, _) in MODELS.items()
        for call in calls
    ]
