"""The demo's calls as data: YAML to clips. What may be in the files is said at their top."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from bench.demo.ear import Wish
from bench.demo.flite import VOICES, Flite
from bench.demo.recording import Source
from bench.sim.caller import Say, When
from bench.sim.sound import Clip
from bench.sim.voice import pico_clip

FOLDER = Path(__file__).parent
HELDOUT = FOLDER / "heldout_eighth.yaml"
PICO = "pico"
CALLER_LANGUAGE = "en-GB"
CALLER_RATE_PERCENT = 80
"""Pico hurries: its usual rate is 200 words a minute, people on the phone speak 150 to 160."""


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """`ends_by`: caller, agent (a hang-up by REST) or either. `expect_heard`: what the agent must say."""

    name: str
    title: str
    turns: tuple[Say, ...]
    ends_by: str = "caller"
    expect_heard: tuple[str, ...] = ()
    sources: tuple[str, ...] = field(default=())
    wishes: Mapping[str, Wish] = field(default_factory=dict)
    again: Mapping[Say, Say] = field(default_factory=dict)


def load_calls(source: Source) -> list[PlannedCall]:
    """The calls of `make demo`; the human one speaks by `source`."""
    data = yaml.safe_load((FOLDER / "calls.yaml").read_text())
    calls = []
    for one in data["calls"]:
        if one.get("recorded"):
            turns = tuple(_recorded(turn, source) for turn in data["recordings"][source.name])
            says_goodbye = any("Goodbye" in turn.expect for turn in turns)
            ends_by = one["ends_by"] if says_goodbye else "caller"
            calls.append(_call({**one, "title": f"{one['title']} ({source.label})", "ends_by": ends_by}, turns))
        else:
            calls.append(_call(one, tuple(_synthesised(turn, one) for turn in one["turns"])))
    return calls


def load_heldout(flite: Flite | None = None, path: Path = HELDOUT) -> list[PlannedCall]:
    """The callers with other words.

    Args:
        flite: speaks for the callers whose `voice` is one of Flite's; without it they speak with Pico.
        path: the file of the callers.
    Raises:
        ValueError: a voice that neither has.
    """
    calls = []
    for one in yaml.safe_load(path.read_text())["calls"]:
        turns = tuple(_synthesised(turn, one, flite) for turn in one["turns"])
        said_by = turns[0].clip.source if turns and turns[0].clip else "nobody"
        call = _call({"title": f"held out: {one['name']} ({said_by})", "ends_by": "either", **one}, turns)
        wishes = {
            name: Wish(ways=tuple(ways), correction=_synthesised({"say": one["corrections"][name]}, one, flite))
            for name, ways in one.get("wants", {}).items()
        }
        again = {
            said: _synthesised({**turn, "say": turn["again"]}, one, flite)
            for turn, said in zip(one["turns"], turns, strict=True)
            if "again" in turn
        }
        calls.append(replace(call, wishes=wishes, again=again))
    return calls


def _call(one: dict[str, Any], turns: tuple[Say, ...]) -> PlannedCall:
    return PlannedCall(
        name=one["name"],
        title=one["title"],
        turns=turns,
        ends_by=one.get("ends_by", "caller"),
        expect_heard=tuple(one.get("expect_heard", ())),
        sources=tuple(sorted({turn.clip.source for turn in turns if turn.clip})),
    )


def _synthesised(turn: dict[str, Any], call: dict[str, Any], flite: Flite | None = None) -> Say:
    voice = call.get("voice", PICO)
    if voice not in (PICO, *VOICES):
        raise ValueError(f"{call['name']}: voice: expected one of {', '.join((PICO, *VOICES))}; got {voice!r}")
    if voice != PICO and flite is not None:
        return _say(turn, flite.clip(turn["say"], voice), call)
    pitch_percent = call.get("pitch_percent", 100)
    clip = pico_clip(
        turn["say"], language=CALLER_LANGUAGE, pitch_percent=pitch_percent, rate_percent=CALLER_RATE_PERCENT
    )
    return _say(turn, clip, call)


def _recorded(turn: dict[str, Any], source: Source) -> Say:
    return _say(turn, source.clip(turn["recording"], turn["text"], turn.get("end_ms")), {})


def _say(turn: dict[str, Any], clip: Clip, call: dict[str, Any]) -> Say:
    after_ms = turn.get("barge_in_after_ms")
    return Say(
        clip=clip,
        when=When.AGENT_FINISHED if after_ms is None else When.BARGE_IN,
        after_ms=after_ms or 0,
        cut_ms=turn.get("cut_ms"),
        expect=tuple(turn.get("expect", ())),
        holds=tuple((name, tuple(call["wants"][name])) for name in turn.get("holds", ())),
    )
