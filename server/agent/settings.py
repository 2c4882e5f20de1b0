"""The settings of one agent version: types, ranges, defaults, units; and the overrides of a channel.

`AgentSettings.parse` is the only way in: unknown keys and values out of range are refused with the path of the
key. `for_channel` is the one place where overrides are resolved. A call pins the result at its start.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from server.agent import field as of
from server.agent.tool_settings import MAX_TOOLS, ToolSettings, problem

Channel = Literal["twilio", "telnyx", "browser"]
CHANNELS: tuple[Channel, ...] = ("twilio", "telnyx", "browser")
# Channels whose calls can be put through to another number.
TRANSFERRING: tuple[Channel, ...] = ("twilio",)
# Names that only the provider of the same group knows.
OF_THE_PROVIDER: Mapping[str, tuple[str, ...]] = {"stt": ("model",), "llm": ("model",), "tts": ("voice", "style")}


class SettingsError(ValueError):
    """A setting is unknown or out of range. `path` is where, e.g. `turn.min_delay_ms`."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path


@dataclass(frozen=True, slots=True, kw_only=True)
class SttSettings:
    provider: str = of.text("moonshine", "name of the transcriber", 40)
    model: str = of.text("", "model of the provider; empty is its default", 80)
    language: str = of.language("", "what is expected to be heard, BCP 47; empty is the agent's language")
    phrases: tuple[str, ...] = of.texts("words to expect, beside those of a `script`", 500)
    phrase_weight: float = of.ranged(1.0, 0.0, 2.0, "how much `phrases` weigh; 0 is not at all")
    profanity: Literal["raw", "masked", "removed"] = of.one_of("raw", "swear words as said, masked or left out")
    stable_words: int = of.ranged(0, 0, 10, "how often an interim must repeat a word; 0 is the provider's default")
    segmentation_silence_ms: int = of.ranged(800, 100, 5000, "silence at which the provider itself ends a phrase")
    initial_silence_ms: int = of.ranged(0, 0, 60000, "silence at the start at which the provider gives up; 0 is never")
    fallbacks: tuple[str, ...] = of.texts(
        "transcribers to use in this order when the first one fails: provider, or provider/model", 5
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmSettings:
    provider: str = of.text("dialogue", "name of the chat model", 40)
    model: str = of.text("", "model of the provider; empty is its default", 80)
    temperature: float = of.ranged(0.4, 0.0, 2.0, "sampling temperature: how freely the model words its answer")
    max_tokens: int = of.ranged(300, 1, 4096, "longest reply")
    frequency_penalty: float = of.ranged(0.0, -2.0, 2.0, "against words that came often")
    presence_penalty: float = of.ranged(0.0, -2.0, 2.0, "against words that came at all")
    reasoning_effort: Literal["", "none", "minimal", "low", "medium", "high"] = of.one_of(
        "", "how much a reasoning model thinks before it speaks; empty is the model's default"
    )
    fallbacks: tuple[str, ...] = of.texts(
        "models to use in this order when the first one fails: provider, or provider/model", 5
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TtsSettings:
    provider: str = of.text("pico", "name of the synthesizer", 40)
    voice: str = of.text("", "voice of the provider; empty is the language's default", 80)
    style: str = of.text("", "speaking style, where the voice has one", 40)
    style_degree: float = of.ranged(1.0, 0.01, 2.0, "how strong the style is")
    rate_percent: int = of.ranged(0, -50, 100, "speaking rate relative to the voice")
    pitch_percent: int = of.ranged(0, -50, 50, "pitch relative to the voice")
    volume_percent: int = of.ranged(100, 0, 100, "volume of the voice")
    lexicon_url: str = of.http_url("", "pronunciation lexicon (W3C PLS) that the provider fetches")
    fallbacks: tuple[str, ...] = of.texts(
        "synthesizers to use in this order when the first one fails: provider, or provider/voice", 5
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpeningSettings:
    mode: Literal["speak", "listen", "delay"] = of.one_of(
        "speak", "who begins: agent, caller, or agent after delay_ms of silence"
    )
    text: str = of.text("", "first message; never goes through the model", 500)
    delay_ms: int = of.ranged(1500, 0, 10000, "silence before the agent opens in mode delay")


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnSettings:
    min_delay_ms: int = of.ranged(500, 100, 3000, "silence after which a complete utterance ends the turn")
    max_delay_ms: int = of.ranged(1600, 300, 8000, "silence after which the turn ends whatever was said")
    vad: Literal["silero", "webrtc"] = of.one_of(
        "silero",
        "who says what is speech: a neural network that must agree with the detector, or the detector alone "
        "(a third of the CPU, false alarms in noise)",
    )
    vad_mode: int = of.ranged(2, 0, 3, "how strict the detector (webrtcvad) is; 3 takes the least for speech")
    onset_ms: int = of.ranged(60, 20, 300, "speech that opens a talkspurt")
    hangover_ms: int = of.ranged(200, 60, 600, "silence that closes a talkspurt")
    level_gate_dbfs: int = of.ranged(-55, -90, -20, "speech below this level is not speech")


@dataclass(frozen=True, slots=True, kw_only=True)
class InterruptionSettings:
    allowed: bool = of.flag(True, "the caller can interrupt the agent")
    min_speech_ms: int = of.ranged(160, 40, 2000, "caller's speech that interrupts the agent")
    protected_opening: bool = of.flag(False, "the first message cannot be interrupted")


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    idle_timeout_ms: int = of.ranged(8000, 1000, 120000, "mutual silence before an idle prompt")
    idle_prompts: tuple[str, ...] = of.texts("spoken one after the other while the caller is silent", 5)
    idle_goodbye: str = of.text("", "spoken before hanging up on a silent caller", 300)
    max_duration_ms: int = of.ranged(1_800_000, 10_000, 14_400_000, "longest call")
    max_duration_notice: str = of.text("", "spoken when the longest call is reached", 300)
    end_call_phrases: tuple[str, ...] = of.texts("whole utterances after which the agent says goodbye and hangs up")
    goodbye: str = of.text("", "spoken before an end-call phrase or tool hangs up", 300)
    apology: str = of.text(
        "", "spoken when one answer cannot be given; empty is one of the language; rendered ahead", 300
    )
    farewell: str = of.text(
        "", "last words of a call that cannot go on; empty is one of the language; rendered ahead", 300
    )
    fallback_number: str = of.pattern(
        "", r"\+[1-9][0-9]{6,14}", "E.164 number that takes over a call that cannot go on; twilio only; empty is none"
    )
    hand_over: str = of.text(
        "",
        "spoken before a call is put through to `fallback_number`; empty is one of the language; rendered ahead",
        300,
    )
    fillers: tuple[str, ...] = of.texts("spoken in turn while an answer takes long; rendered ahead", 10)
    filler_after_ms: int = of.ranged(1500, 500, 5000, "silence that is owed to the caller before a filler")
    apology_after_ms: int = of.ranged(4500, 1500, 15000, "silence that is owed before an answer is given up")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureSettings:
    enabled: bool = of.flag(True, "each call is captured for replay, in `DATA_DIR/capture`")
    audio: bool = of.flag(False, "the caller's audio is captured too, so that speech can be judged again")
    keys: bool = of.flag(False, "which keys were pressed is captured too; they may be a card or a PIN")
    max_bytes: int = of.ranged(
        67_108_864, 65_536, 1_073_741_824, "largest file; beyond it the capture is truncated, and the call goes on"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """Everything about one agent version. `script` is the dialogue engine's; other models use `prompt`."""

    name: str = of.text("agent", "shown to people", 80)
    language: str = of.language("en-US", "what the agent speaks and expects to hear, BCP 47")
    prompt: str = of.text("", "operator's instructions to the model", 20000)
    stt: SttSettings = field(default_factory=SttSettings)
    llm: LlmSettings = field(default_factory=LlmSettings)
    tts: TtsSettings = field(default_factory=TtsSettings)
    opening: OpeningSettings = field(default_factory=OpeningSettings)
    turn: TurnSettings = field(default_factory=TurnSettings)
    interruption: InterruptionSettings = field(default_factory=InterruptionSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    capture: CaptureSettings = field(default_factory=CaptureSettings)
    tools: tuple[ToolSettings, ...] = of.records("what the model may do besides `end_call`: docs/tools.md", MAX_TOOLS)
    script: Mapping[str, Any] = of.mapping("what the engine `dialogue` follows: docs/offline.md")
    channels: Mapping[str, Mapping[str, Any]] = of.mapping(
        "twilio, telnyx, browser: any of these settings, for that channel"
    )

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> AgentSettings:
        """Check `raw` (from YAML or JSON) and fill in defaults. Raises SettingsError."""
        settings: AgentSettings = _parse(cls, raw, "")
        _check_delays(settings.turn, "")
        _check_tools(settings.tools, "")
        for channel, overrides in settings.channels.items():
            if channel not in CHANNELS:
                raise SettingsError(f"channels.{channel}", f"expected one of {', '.join(CHANNELS)}")
            if isinstance(overrides, Mapping) and "channels" in overrides:
                raise SettingsError(f"channels.{channel}.channels", "overrides do not nest")
            _parse(cls, overrides, f"channels.{channel}.")
            if channel not in TRANSFERRING and "fallback_number" in overrides.get("limits", {}):
                raise SettingsError(f"channels.{channel}.limits.fallback_number", "this channel puts no call through")
            # Each is in its range; together with the values it does not replace it must make sense too.
            merged = settings.for_channel(channel)
            _check_delays(merged.turn, f"channels.{channel}.")
            _check_tools(merged.tools, f"channels.{channel}.")
        return settings

    def for_channel(self, channel: Channel) -> AgentSettings:
        """These settings with the overrides of `channel` applied; the result has no overrides of its own.

        An override that names another provider takes the model, voice and style of the one before with it.
        """
        overrides = self.channels.get(channel, {})
        changed: dict[str, Any] = {"channels": {}}
        for group, names in OF_THE_PROVIDER.items():
            before = getattr(self, group)
            if overrides.get(group, {}).get("provider", before.provider) != before.provider:
                changed[group] = dataclasses.replace(before, **dict.fromkeys(names, ""))
        merged = typing.cast(AgentSettings, _merge(dataclasses.replace(self, **changed), overrides))
        if channel not in TRANSFERRING and merged.limits.fallback_number:
            merged = dataclasses.replace(merged, limits=dataclasses.replace(merged.limits, fallback_number=""))
        return merged

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form; `parse` of it gives an equal value."""
        return dataclasses.asdict(self)


def _check_delays(turn: TurnSettings, path: str) -> None:
    if turn.max_delay_ms < turn.min_delay_ms:
        raise SettingsError(f"{path}turn.max_delay_ms", "expected at least turn.min_delay_ms")


def _hints(cls: type[Any]) -> Mapping[str, Any]:
    """Compiled from the annotations' text, which takes longer than all else that is done with settings in a call."""
    if cls not in _KNOWN:
        _KNOWN[cls] = typing.get_type_hints(cls)
    return _KNOWN[cls]


_KNOWN: dict[type[Any], Mapping[str, Any]] = {}
"""One entry for each group of settings."""


def _check_tools(tools: tuple[ToolSettings, ...], path: str) -> None:
    for at, tool in enumerate(tools):
        if found := problem(tool):
            raise SettingsError(f"{path}tools[{at}].{found[0]}", found[1])
        if any(tool.name == other.name for other in tools[:at]):
            raise SettingsError(f"{path}tools[{at}].name", f"there are two tools named {tool.name}")


def _parse(cls: type[Any], raw: Any, path: str) -> Any:
    if not isinstance(raw, Mapping):
        raise SettingsError(path.rstrip(".") or "(agent)", f"expected a mapping, got {type(raw).__name__}")
    hints = _hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in known:
            raise SettingsError(f"{path}{key}", f"unknown setting; known here: {', '.join(known)}")
        values[key] = _value(hints[key], known[key], value, f"{path}{key}")
    return cls(**values)


def _value(hint: Any, spec: dataclasses.Field[Any], value: Any, path: str) -> Any:
    meta = spec.metadata
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        return _parse(typing.cast(type[Any], hint), value, f"{path}.")
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise SettingsError(path, f"expected one of {', '.join(map(str, typing.get_args(hint)))}; got {value!r}")
        return value
    if origin is tuple and dataclasses.is_dataclass(record := typing.get_args(hint)[0]):
        if not isinstance(value, list | tuple) or len(value) > meta["max_items"]:
            raise SettingsError(path, f"expected a list of at most {meta['max_items']}")
        return tuple(_parse(typing.cast(type[Any], record), one, f"{path}[{at}].") for at, one in enumerate(value))
    if origin is tuple:
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
            raise SettingsError(path, "expected a list of texts")
        if len(value) > meta["max_items"] or any(len(v) > meta["max_chars"] for v in value):
            raise SettingsError(path, f"expected at most {meta['max_items']} texts of {meta['max_chars']} characters")
        return tuple(value)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise SettingsError(path, "expected a mapping")
        return value
    if hint is bool:
        if not isinstance(value, bool):
            raise SettingsError(path, f"expected true or false; got {value!r}")
        return value
    if hint is str:
        if not isinstance(value, str) or len(value) > meta["max_chars"]:
            raise SettingsError(path, f"expected a text of at most {meta['max_chars']} characters")
        if "pattern" in meta and value != spec.default and not re.fullmatch(meta["pattern"], value):
            raise SettingsError(path, f"expected {meta['form'] or 'a text like ' + meta['pattern']}; got {value!r}")
        return value
    return _number(hint, meta, value, path)


def _number(hint: Any, meta: types.MappingProxyType[Any, Any], value: Any, path: str) -> Any:
    wanted = "a whole number" if hint is int else "a number"
    if isinstance(value, bool) or not isinstance(value, int if hint is int else int | float):
        raise SettingsError(path, f"expected {wanted}; got {value!r}")
    if not meta["low"] <= value <= meta["high"]:
        raise SettingsError(path, f"expected {wanted} from {meta['low']} to {meta['high']}; got {value!r}")
    return hint(value)


def _merge(base: Any, overrides: Mapping[str, Any]) -> Any:
    changed: dict[str, Any] = {}
    hints = _hints(type(base))
    for key, value in overrides.items():
        now = getattr(base, key)
        if dataclasses.is_dataclass(now):
            changed[key] = _merge(now, value)
        else:
            spec = next(f for f in dataclasses.fields(base) if f.name == key)
            changed[key] = _value(hints[key], spec, value, key)
    return dataclasses.replace(base, **changed)
