"""Names in what a caller says: what introduces them, and where they end."""

from __future__ import annotations

import re
from itertools import pairwise

from providers.offline.lexicon import Lexicon
from providers.offline.name_sense import is_a_first_name, is_a_last_name, may_be_a_name, mend
from providers.offline.slot_spec import Found
from providers.offline.words import plain

MAX_NAME_WORDS = 4
MAX_BARE_WORDS = 4  # without anything that introduces it


def find_name(text: str, words: list[str], lexicon: Lexicon, *, strict: bool) -> Found | None:
    said = " ".join(words)
    for trail in lexicon.name_trail:
        if said.endswith(f" {trail}"):
            return _name_of(text, words[: -trail.count(" ") - 1], words, lexicon, strict=False)
    for at, word in enumerate(words[:-1]):
        # "Jason Bell here", "Anna Miller, I would like": a first and a last name say it by themselves.
        follows = words[at + 1]
        is_said = words[at + 2 : at + 3] in [[one] for one in lexicon.name_after] and may_be_a_name(follows, lexicon)
        is_own = at == 0 or words[at - 1] not in lexicon.of_others
        if strict and is_own and is_a_first_name(word, lexicon) and (is_said or is_a_last_name(follows, lexicon)):
            return _name_of(text, words[at : at + 2], words, lexicon, strict=False)
    for lead in sorted(lexicon.name_before, key=len, reverse=True):
        weak = lead in ("for", "under", "it is", "this is", "i am", "es", "soy", "habla", "nombre de")
        match = re.search(rf"\b{lead} (.+)", said)
        if match is not None and not (strict and weak and not _capital_after(text, lead)):
            return _name_of(text, match.group(1).split(), words, lexicon, strict=strict)
    if strict or (len(words) > MAX_BARE_WORDS and not _has_a_name(text)):
        return None
    return _name_of(text, words, words, lexicon, strict=False)


def _has_a_name(text: str) -> bool:
    """Whether two words in a row are written as names: a long sentence without them is no name."""
    return re.search(r"\b[A-ZÁÉÍÓÚÑ][a-zà-ÿ]+ [A-ZÁÉÍÓÚÑ][a-zà-ÿ]+", text) is not None


def is_led(words: str, lexicon: Lexicon) -> bool:
    """Whether something that introduces a name is in plain words: "put it under ..."."""
    leads = (lead for lead in lexicon.name_before if lead not in ("for", "es"))
    return any(f" {lead} " in f" {words} " for lead in (*leads, *lexicon.name_trail))


def names_somebody(words: str, lexicon: Lexicon) -> bool:
    """Whether a common first name and one more name stand in plain words: "the name Rachel Green"."""
    said = words.split()
    return any(is_a_first_name(one, lexicon) and may_be_a_name(other, lexicon) for one, other in pairwise(said))


def _capital_after(text: str, lead: str) -> bool:
    """Whether the recogniser wrote a capital after `lead`: the only sign that "this is" leads to a name."""
    last = lead.split()[-1]
    if lead in ("for", "under", "es", "it is"):
        return False
    return re.search(rf"(?i:\b{last}|\bi['’]m) [A-ZÁÉÍÓÚÑ][a-zà-ÿ]", text) is not None


def _name_of(text: str, after: list[str], words: list[str], lexicon: Lexicon, *, strict: bool) -> Found | None:
    written = {plain(word, lexicon): word.strip(" .,!?;:¿¡\"") for word in text.split()}
    closed = {plain(word, lexicon) for word in text.split() if word[-1] in ",.;!?"}
    chosen: list[str] = []
    is_closed = False
    if not strict:
        after = _from_the_name(after, lexicon)
    for word in after:
        if len(chosen) > 1 and is_closed:
            break  # a comma after two names: what follows is something else
        is_closed = written.get(word, "")[:1].isupper() and word in closed
        if word in lexicon.name_after or (chosen and word in lexicon.name_noise) or not word[0].isalpha():
            break
        if word not in lexicon.name_noise and (not strict or written.get(word, "")[:1].isupper() or not chosen):
            chosen.append(word)
        if len(chosen) == MAX_NAME_WORDS:
            break
    # "Yep, go ahead" is no name: at least one word must be one that is not in everybody's mouth.
    if not chosen or not any(may_be_a_name(word, lexicon) for word in chosen):
        return None
    capitals = [written.get(word, "")[:1].isupper() for word in chosen]
    if len(chosen) > 1 and chosen[0] == words[0]:
        capitals[0] = False  # every sentence begins with one
    mended, is_sure = mend(chosen, capitals, lexicon)
    start = words.index(chosen[0])
    said = [word if word not in chosen else (written.get(word) or word) for word in mended]
    value = " ".join(_capital(one) for one in said)
    return Found(value, start, start + len(chosen), is_sure)


def _capital(word: str) -> str:
    """ "o'neil" → O'Neil, "Eric's" → Eric."""
    word = re.sub(r"['’]s$", "", word)
    if re.fullmatch(r"[OoDd]['’]\w+", word):
        return word.title()
    return "-".join(one.capitalize() for one in word.split("-"))


def _from_the_name(words: list[str], lexicon: Lexicon) -> list[str]:
    """ "Cheer and Peter Collins": from the first name on, where a surname follows it."""
    for at, word in enumerate(words[:-1]):
        follows = words[at + 1]
        if is_a_first_name(word, lexicon) and may_be_a_name(follows, lexicon) and follows not in lexicon.name_noise:
            return words[at:]
    return words
