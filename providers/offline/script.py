"""The dialogue script of an agent: checked, and compiled into what the engine looks up.

    script (YAML mapping) → Script(intents, slots, facts, phrases) + Matcher

docs/offline.md describes the keys. `compile_script` refuses what it does not know with the path of the key, so that an
agent with a wrong script is refused when it is imported and not when somebody calls.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from providers.errors import ProviderRejected
from providers.offline.lexicon import LEXICONS, Lexicon
from providers.offline.match import Matcher
from providers.offline.slot_spec import SLOT_TYPES, Slot
from providers.offline.words import plain

MAX_INTENTS = 100
MAX_EXAMPLES = 200

_SCRIPT_KEYS = {"facts", "synonyms", "slots", "intents", "phrases", "on_no", "on_lost"}
_INTENT_KEYS = {
    "examples", "keywords", "label", "answer", "slots", "new", "confirm", "done", "tool", "follow_up", "repeat"
}  # fmt: skip
_SLOT_KEYS = {"type", "ask", "reask", "invalid", "min", "max", "refuse", "choices", "keep", "cues", "label"}
_TOOL_KEYS = {"name", "arguments", "answer", "failed"}
_VARIABLE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Tool:
    """A call that ends an intent. `arguments` are templates; `answer` is said when its result is there."""

    name: str
    arguments: Mapping[str, str]
    answer: str = ""
    failed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """One thing a caller wants. With `slots` it is a form: asked one by one, confirmed, done.

    `new` are slots that replace something: what the first sentence says of them is what was, unless it leads to it.
    """

    name: str
    label: str
    examples: tuple[str, ...]
    keywords: tuple[str, ...]
    answer: tuple[str, ...] = ()
    slots: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    confirm: str = ""
    done: tuple[str, ...] = ()
    tool: Tool | None = None
    follow_up: bool = True
    repeat: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Everything that the engine needs to hold this agent's conversations. Immutable."""

    lexicon: Lexicon
    intents: Mapping[str, Intent]
    slots: Mapping[str, Slot]
    facts: Mapping[str, str]
    phrases: Mapping[str, tuple[str, ...]]
    matcher: Matcher = field(repr=False)
    on_no: str = ""
    on_lost: str = ""

    def labels(self) -> str:
        """The things that can be asked about, for a caller who is lost."""
        named = [intent.label for intent in self.intents.values() if intent.label][:4]
        return f"{', '.join(named[:-1])} {self.phrases['or'][0]} {named[-1]}" if len(named) > 1 else "".join(named)


def compile_script(raw: Mapping[str, Any], language: str) -> Script:
    """Check `raw` and prepare it. Takes a few milliseconds.

    Raises:
        ProviderRejected: unknown language or key, a slot that does not exist, an intent without answer; names the path.
    """
    primary = language.split("-")[0].lower()
    if primary not in LEXICONS:
        raise _wrong("language", f"expected one of {', '.join(LEXICONS)}; got {language}")
    lexicon = LEXICONS[primary]
    _known(raw, _SCRIPT_KEYS, "script")
    slots = {name: _slot(name, value, lexicon) for name, value in _mapping(raw, "slots", "script").items()}
    wanted = _mapping(raw, "intents", "script")
    if not 0 < len(wanted) <= MAX_INTENTS:
        raise _wrong("script.intents", f"expected 1 to {MAX_INTENTS} intents, got {len(wanted)}")
    facts = {name: str(value) for name, value in _mapping(raw, "facts", "script").items()}
    intents = {name: _intent(name, value, slots, facts) for name, value in wanted.items()}
    phrases = dict(lexicon.phrases)
    for name, value in _mapping(raw, "phrases", "script").items():
        if name not in phrases:
            raise _wrong(f"script.phrases.{name}", f"unknown; known here: {', '.join(phrases)}")
        phrases[name] = _texts(value, f"script.phrases.{name}")
    for key in ("on_no", "on_lost"):
        if raw.get(key, "") and raw[key] not in intents:
            raise _wrong(f"script.{key}", f"expected an intent, got {raw[key]!r}")
    synonyms = {
        plain(str(name), lexicon): tuple(plain(one, lexicon) for one in _texts(value, f"script.synonyms.{name}"))
        for name, value in _mapping(raw, "synonyms", "script").items()
    }
    examples = {name: (intent.examples, intent.keywords) for name, intent in intents.items()}
    return Script(
        lexicon=lexicon,
        intents=intents,
        slots=slots,
        facts=facts,
        phrases=phrases,
        matcher=Matcher(examples, synonyms, tuple(slots.values()), lexicon),
        on_no=str(raw.get("on_no", "")),
        on_lost=str(raw.get("on_lost", "")),
    )


def fill(template: str, values: Mapping[str, str]) -> str:
    """`template` with {names} replaced; what is inserted is not looked at again."""
    return _VARIABLE.sub(lambda found: values.get(found[1], ""), template)


def _slot(name: str, raw: Any, lexicon: Lexicon) -> Slot:
    path = f"script.slots.{name}"
    _known(raw, _SLOT_KEYS, path)
    if raw.get("type") not in SLOT_TYPES:
        raise _wrong(f"{path}.type", f"expected one of {', '.join(SLOT_TYPES)}; got {raw.get('type')!r}")
    choices: dict[str, tuple[str, ...]] = {}
    for value, spoken in _mapping(raw, "choices", path).items():
        said = (str(value), *_texts(spoken or (), f"{path}.choices.{value}"))
        choices[str(value)] = tuple(plain(one, lexicon) for one in said)
    if (raw["type"] == "choice") != bool(choices):
        raise _wrong(f"{path}.choices", "expected for type choice, and only there")
    ask = _texts(raw.get("ask", ()), f"{path}.ask")
    if not ask:
        raise _wrong(f"{path}.ask", "expected the question for this value")
    return Slot(
        name=name,
        type=raw["type"],
        ask=ask,
        reask=_texts(raw.get("reask", ()), f"{path}.reask") or ask[-1:],
        invalid=str(raw.get("invalid", "")),
        low=int(raw.get("min", 0)),
        high=int(raw.get("max", 10**9)),
        refuse={str(key).lower(): str(value) for key, value in _mapping(raw, "refuse", path).items()},
        choices=choices,
        keep=bool(raw.get("keep", False)),
        labels=tuple(plain(one, lexicon) for one in (name, *_texts(raw.get("label", ()), f"{path}.label"))),
        cues=tuple(plain(cue, lexicon) for cue in _texts(raw.get("cues", ()), f"{path}.cues")),
    )


def _intent(name: str, raw: Any, slots: Mapping[str, Slot], facts: Mapping[str, str]) -> Intent:
    path = f"script.intents.{name}"
    _known(raw, _INTENT_KEYS, path)
    examples = _texts(raw.get("examples", ()), f"{path}.examples")
    if not 0 < len(examples) <= MAX_EXAMPLES:
        raise _wrong(f"{path}.examples", f"expected 1 to {MAX_EXAMPLES} sentences, got {len(examples)}")
    form = _texts(raw.get("slots", ()), f"{path}.slots")
    for slot in form:
        if slot not in slots:
            raise _wrong(f"{path}.slots", f"no slot named {slot!r}")
    new = _texts(raw.get("new", ()), f"{path}.new")
    for slot in new:
        if slot not in form:
            raise _wrong(f"{path}.new", f"{slot!r} is none of its slots")
    intent = Intent(
        name=name,
        label=str(raw.get("label", "")),
        examples=examples,
        keywords=_texts(raw.get("keywords", ()), f"{path}.keywords"),
        answer=_texts(raw.get("answer", ()), f"{path}.answer"),
        slots=form,
        new=new,
        confirm=str(raw.get("confirm", "")),
        done=_texts(raw.get("done", ()), f"{path}.done"),
        tool=_tool(raw["tool"], f"{path}.tool") if "tool" in raw else None,
        follow_up=bool(raw.get("follow_up", True)),
        repeat=bool(raw.get("repeat", False)),
    )
    if not (intent.done if form else intent.answer or intent.tool):
        raise _wrong(path, "expected `done` for an intent with slots, `answer` or `tool` for one without")
    spoken = (*intent.answer, intent.confirm, *intent.done, *(intent.tool.arguments.values() if intent.tool else ()))
    for variable in {found for text in spoken for found in _VARIABLE.findall(text)}:
        if variable not in slots and variable not in facts:
            raise _wrong(path, f"{{{variable}}} is neither a slot nor a fact")
    return intent


def _tool(raw: Any, path: str) -> Tool:
    _known(raw, _TOOL_KEYS, path)
    if not isinstance(raw.get("name"), str):
        raise _wrong(f"{path}.name", "expected the name of a tool")
    arguments = {str(key): str(value) for key, value in _mapping(raw, "arguments", path).items()}
    return Tool(raw["name"], arguments, str(raw.get("answer", "")), str(raw.get("failed", "")))


def _texts(value: Any, path: str) -> tuple[str, ...]:
    """One text or a list of texts."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple) or not all(isinstance(one, str | int | float) for one in value):
        raise _wrong(path, "expected a text or a list of texts")
    return tuple(str(one) for one in value)


def _mapping(raw: Mapping[str, Any], key: str, path: str) -> Mapping[str, Any]:
    value = raw.get(key) or {}
    if not isinstance(value, Mapping):
        raise _wrong(f"{path}.{key}", "expected a mapping")
    return value


def _known(raw: Any, keys: set[str], path: str) -> None:
    if not isinstance(raw, Mapping):
        raise _wrong(path, "expected a mapping")
    for key in raw:
        if key not in keys:
            raise _wrong(f"{path}.{key}", f"unknown; known here: {', '.join(sorted(keys))}")


def _wrong(path: str, message: str) -> ProviderRejected:
    return ProviderRejected(f"{path}: {message}", status=400, provider="dialogue")
