"""Model text -> speakable clauses, while the text is still streaming.

A clause is the piece of a reply that is synthesised as one request. The first one is cut as early as a natural
pause allows (a comma will do once there are a few words), later ones at sentence ends, so that the first sound
comes early and the voice still has whole sentences to shape.

Invariant: for any chunking of the stream, the clauses joined by spaces equal `speakable(text)`.
"""

from __future__ import annotations

import re

# A first clause shorter than this sounds clipped; a clause longer than the maximum delays the next sound.
FIRST_CLAUSE_MIN_CHARS = 12
CLAUSE_MAX_CHARS = 220

_ABBREVIATIONS = frozenset(
    "mr mrs ms dr st prof sr jr vs etc inc ltd no approx dept est fig e.g i.e a.m p.m u.s"
    " sra srta dra d.ª avda av pág núm tel ud uds ee.uu aprox".split()
)
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s)")
_SOFT_END = re.compile(r"[,;:]+[\"'”’)\]]*(?=\s)|\s[–—-](?=\s)")
_REASONING = re.compile(r"<(think|thinking|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_CODE_FENCE = re.compile(r"```.*?```", re.DOTALL)
_LINK = re.compile(r"\[([^\]\n]*)\]\([^)\n]*\)")
_LINE_MARKUP = re.compile(r"^\s*(?:#{1,6}\s+|[-*+]\s+|>\s?)", re.MULTILINE)
_EMPHASIS = re.compile(r"[*_`~]{1,3}(?=\S)|(?<=\S)[*_`~]{1,3}")
# Emoji and pictographs, their joiners and variation selectors (Unicode blocks).
_EMOJI = re.compile("[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\ufe0e\ufe0f\u200d\u20e3]")
_SPACE = re.compile(r"\s+")


def speakable(text: str) -> str:
    """`text` as it may be spoken: no markup, no emoji, no reasoning, single spaces."""
    text = _REASONING.sub(" ", text)
    text = _CODE_FENCE.sub(" ", text)
    text = _LINK.sub(r"\1", text)
    text = _LINE_MARKUP.sub("", text)
    text = _EMPHASIS.sub("", text)
    text = _EMOJI.sub("", text)
    return _SPACE.sub(" ", text).strip()


class ClauseSplitter:
    """Collects a stream of text and gives out clauses as soon as they are complete."""

    __slots__ = ("_first", "_given", "_raw")

    def __init__(self) -> None:
        self._raw = ""
        self._given = 0
        self._first = True

    def feed(self, delta: str) -> list[str]:
        """Take more text; return the clauses that it completed."""
        self._raw += delta
        # Markup that is still open would be read aloud if it were cut now.
        if _has_open_markup(self._raw):
            return []
        return self._cut(speakable(self._raw + "\x00").removesuffix("\x00"))

    def flush(self) -> list[str]:
        """The stream is over: return what is left."""
        text = speakable(_close_markup(self._raw))
        clauses = self._cut(text)
        rest = text[self._given :].strip()
        self._given = len(text)
        return [*clauses, rest] if rest else clauses

    def _cut(self, text: str) -> list[str]:
        clauses = []
        while (end := self._next_end(text)) is not None:
            clause = text[self._given : end].strip()
            self._given = end
            if clause:
                clauses.append(clause)
                self._first = False
        return clauses

    def _next_end(self, text: str) -> int | None:
        for found in _SENTENCE_END.finditer(text, self._given):
            if _ends_sentence(text, self._given, found.start(), found.group()):
                return found.end()
        if self._first:
            for found in _SOFT_END.finditer(text, self._given):
                if found.start() - self._given >= FIRST_CLAUSE_MIN_CHARS:
                    return found.end()
        if len(text) - self._given > CLAUSE_MAX_CHARS:
            cuts = [f.end() for f in _SOFT_END.finditer(text, self._given, self._given + CLAUSE_MAX_CHARS)]
            if cuts:
                return cuts[-1]
            space = text.rfind(" ", self._given + 1, self._given + CLAUSE_MAX_CHARS)
            return space if space > 0 else None
        return None


def _ends_sentence(text: str, start: int, dot: int, mark: str) -> bool:
    if mark[0] != ".":
        return True
    word = text[start:dot].rsplit(" ", 1)[-1].lstrip("(\"'“‘¿¡").lower()
    if word in _ABBREVIATIONS:
        return False
    # "1. Call us" is a list, "A. Smith" an initial.
    return not (len(word) == 1 and word.isalpha() and word not in ("i", "a", "y", "o")) and not (
        word.isdigit() and len(word) <= 2 and text[start:dot].strip() == word
    )


def _has_open_markup(raw: str) -> bool:
    lowered = raw.lower()
    if raw.count("```") % 2 or raw.endswith("`"):
        return True
    for tag in ("think", "thinking", "reasoning"):
        if lowered.count(f"<{tag}>") > lowered.count(f"</{tag}>"):
            return True
    tail = raw[max(raw.rfind(" "), raw.rfind("\n")) + 1 :]
    if "<" in tail and ">" not in tail:
        return True
    opened = raw.rfind("[")
    return opened >= 0 and "\n" not in raw[opened:] and not _LINK.match(raw, opened) and _may_be_link(raw[opened:])


def _may_be_link(tail: str) -> bool:
    close = tail.find("]")
    if close < 0:
        return len(tail) < 120
    after = tail[close + 1 :]
    return after == "" or (after.startswith("(") and ")" not in after)


def _close_markup(raw: str) -> str:
    # An unfinished code block or thought is never spoken.
    if raw.count("```") % 2:
        raw = raw[: raw.rfind("```")]
    lowered = raw.lower()
    for tag in ("think", "thinking", "reasoning"):
        if lowered.count(f"<{tag}>") > lowered.count(f"</{tag}>"):
            raw = raw[: lowered.rfind(f"<{tag}>")]
            lowered = raw.lower()
    return raw
