"""The words that callers of a scripted agent are likely to say, for a recogniser that takes phrases to expect.

    script → words of examples, keywords and choices + the days, times, answers and names that its slots ask for

Courtesies and function words are left out: a recogniser knows them. Pure but for what `Expected` remembers.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from providers.offline.lexicon import LEXICONS, Lexicon
from providers.offline.words import plain

MAX_WORDS = 600
MAX_NAMES = 250  # first ones, and as many last ones; twice as many helped no more
MAX_SCRIPTS = 64
MIN_CHARS = 3

_PLACEHOLDER = re.compile(r"\{\w+\}")


class Expected:
    """`script_phrases` of the agents in use: a script belongs to one immutable agent version and is read once."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        # By identity, and kept with its mapping so that the id stays its own.
        self._known: OrderedDict[tuple[int, str], tuple[Mapping[str, Any], tuple[str, ...]]] = OrderedDict()

    def phrases(self, script: Mapping[str, Any], language: str) -> tuple[str, ...]:
        key = (id(script), language)
        if key not in self._known:
            self._known[key] = (script, script_phrases(script, language))
            while len(self._known) > MAX_SCRIPTS:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key][1]


def script_phrases(script: Mapping[str, Any], language: str) -> tuple[str, ...]:
    """Words and short phrases, the most useful first; empty for a language without a lexicon."""
    lexicon = LEXICONS.get(language.split("-")[0].lower())
    if lexicon is None:
        return ()
    slots = [slot for slot in (script.get("slots") or {}).values() if isinstance(slot, Mapping)]
    intents = [intent for intent in (script.get("intents") or {}).values() if isinstance(intent, Mapping)]
    found: dict[str, None] = {}
    kinds = {slot.get("type") for slot in slots}
    for slot in slots:
        for value, spoken in (slot.get("choices") or {}).items():
            found.update(dict.fromkeys((str(value), *_texts(spoken))))
    if "date" in kinds:
        found.update(dict.fromkeys((*lexicon.weekdays.values(), *lexicon.relative_days)))
    if "time" in kinds:
        found.update(dict.fromkeys(lexicon.times))
    if any(intent.get("confirm") for intent in intents):
        found.update(dict.fromkeys(lexicon.answers))
    for intent in intents:
        for text in (*_texts(intent.get("keywords")), *_texts(intent.get("examples"))):
            found.update(dict.fromkeys(_words(_PLACEHOLDER.sub(" ", text), lexicon)))
    return (*tuple(found)[:MAX_WORDS], *(_names(lexicon) if "name" in kinds else ()))


def _names(lexicon: Lexicon) -> tuple[str, ...]:
    """Common names; not those that are words too, which a recogniser writes too often as it is."""
    common = (*lexicon.first_names[:MAX_NAMES], *lexicon.last_names[:MAX_NAMES])
    words = lexicon.name_words | lexicon.ordinary | lexicon.stop_words
    return tuple(name.capitalize() for name in dict.fromkeys(common) if name not in words)


def _texts(value: Any) -> Iterable[str]:
    return (value,) if isinstance(value, str) else tuple(str(one) for one in value or ())


def _words(text: str, lexicon: Lexicon) -> list[str]:
    """The words of a sentence that say something, as they are written."""
    words = re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", text)
    return [
        word for word in words if len(word) >= MIN_CHARS and not set(plain(word, lexicon).split()) <= lexicon.stop_words
    ]
