"""Model text -> speakable clauses, while the text is still streaming.

    deltas ─► Cleaner (no markup, emoji, reasoning) ─► ClauseSplitter ─► clauses

A clause is the piece of a reply that is synthesised as one request. The first one is cut as early as a natural
pause allows (a comma will do once there are a few words), later ones at sentence ends, so that the first sound
comes early and the voice still has whole sentences to shape.

Invariant: both halves decide from what stands before a point and a bounded look ahead, never from where a chunk
ended; so for any chunking the clauses joined by spaces equal `speakable(text)`.
"""

from __future__ import annotations

import re

# A first clause shorter than this sounds clipped; a clause longer than the maximum delays the next sound.
FIRST_CLAUSE_MIN_CHARS = 12
CLAUSE_MAX_CHARS = 220
# What looks like the start of a link and is longer than this is no link.
LINK_MAX_CHARS = 400

_ABBREVIATIONS = frozenset(
    "mr mrs ms dr st prof sr jr vs etc inc ltd no approx dept est fig e.g i.e a.m p.m u.s"
    " sra srta dra d.ª avda av pág núm tel ud uds ee.uu aprox".split()
)
_END = re.compile(r"(?P<hard>[.!?…]+[\"'”’)\]]*(?=\s))|(?P<soft>[,;:]+[\"'”’)\]]*(?=\s)|\s[–—-](?=\s))")
_SOFT = re.compile(r"[,;:]+[\"'”’)\]]*(?=\s)|\s[–—-](?=\s)")
_BLOCKS = (("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<reasoning>", "</reasoning>"), ("```", "```"))
_LINK = re.compile(r"\[([^\[\]\n]*)\]\([^()\n]*\)")
_LINK_BEGUN = re.compile(r"\[[^\[\]\n]*(?:\](?:\([^()\n]*)?)?\Z")
_LINE_MARK = re.compile(r"(?:#{1,6}|[-*+]|>)[ \t]+(?=\S)")
_LINE_MARK_BEGUN = re.compile(r"(?:#{1,6}|[-*+]|>)[ \t]*\Z")
_NEVER_SPOKEN = frozenset("*_`~")
# Emoji and pictographs, their joiners and variation selectors (Unicode blocks).
_EMOJI = re.compile("[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\ufe0e\ufe0f\u200d\u20e3]")


class Cleaner:
    """Takes what may not be spoken out of a stream of text; whitespace becomes single spaces."""

    __slots__ = ("_at_line_start", "_raw", "_spaced")

    def __init__(self) -> None:
        self._raw = ""
        self._at_line_start = True
        self._spaced = True

    def feed(self, delta: str, *, last: bool = False) -> str:
        self._raw += delta
        out: list[str] = []
        at = 0
        while at < len(self._raw):
            taken = self._token(at, out, last)
            if taken == 0:
                break
            at += taken
        self._raw = self._raw[at:]
        return "".join(out)

    def _token(self, at: int, out: list[str], last: bool) -> int:
        """Take one token at `at`; returns its length, 0 when more text is needed to tell."""
        raw, char = self._raw, self._raw[at]
        if char in "<`" and (taken := self._block(at, last)) is not None:
            return taken
        if char == "[" and (taken := self._link(at, out, last)) is not None:
            return taken
        if self._at_line_start and char in "#-*+>":
            if (mark := _LINE_MARK.match(raw, at)) is not None:
                self._at_line_start = False
                return mark.end() - at
            if not last and _LINE_MARK_BEGUN.match(raw, at):
                return 0
        if char.isspace():
            self._at_line_start = char == "\n" or (self._at_line_start and char in " \t")
            if not self._spaced:
                out.append(" ")
                self._spaced = True
        elif char in _NEVER_SPOKEN or _EMOJI.match(char):
            self._at_line_start = False
        else:
            self._say(char, out)
        return 1

    def _say(self, text: str, out: list[str]) -> None:
        self._at_line_start = self._spaced = False
        out.append(text)

    def _block(self, at: int, last: bool) -> int | None:
        lowered = self._raw[at:].lower()
        for opening, closing in _BLOCKS:
            if lowered.startswith(opening):
                end = lowered.find(closing, len(opening))
                if end >= 0:
                    return end + len(closing)
                # An unfinished thought is never spoken.
                return len(lowered) if last else 0
            if not last and opening.startswith(lowered):
                return 0
        return None

    def _link(self, at: int, out: list[str], last: bool) -> int | None:
        link = _LINK.match(self._raw, at)
        if link is not None and len(link.group()) <= LINK_MAX_CHARS:
            inner = Cleaner()
            inner._spaced, inner._at_line_start = self._spaced, False
            text = inner.feed(link.group(1), last=True)
            out.append(text)
            self._spaced = inner._spaced
            self._at_line_start = False
            return link.end() - at
        waiting = not last and len(self._raw) - at <= LINK_MAX_CHARS and _LINK_BEGUN.match(self._raw, at)
        return 0 if waiting else None


def speakable(text: str) -> str:
    """`text` as it may be spoken: no markup, no emoji, no reasoning, single spaces."""
    return Cleaner().feed(text, last=True).strip()


class ClauseSplitter:
    """Collects a stream of text and gives out clauses as soon as they are complete."""

    __slots__ = ("_cleaner", "_first", "_text")

    def __init__(self) -> None:
        self._cleaner = Cleaner()
        self._text = ""
        self._first = True

    def feed(self, delta: str) -> list[str]:
        """Take more text; return the clauses that it completed."""
        self._text += self._cleaner.feed(delta)
        return self._cut()

    def flush(self) -> list[str]:
        """The stream is over: return what is left."""
        self._text += self._cleaner.feed("", last=True)
        clauses = self._cut()
        rest, self._text = self._text.strip(), ""
        return [*clauses, rest] if rest else clauses

    def _cut(self) -> list[str]:
        clauses = []
        while (end := self._next_end()) is not None:
            clause, self._text = self._text[:end].strip(), self._text[end:].lstrip()
            if clause:
                clauses.append(clause)
                self._first = False
        return clauses

    def _next_end(self) -> int | None:
        text = self._text
        for found in _END.finditer(text, 0, CLAUSE_MAX_CHARS + 1):
            if found.end() > CLAUSE_MAX_CHARS:
                break
            if found["hard"]:
                if _ends_sentence(text[: found.start()], found["hard"]):
                    return found.end()
            elif self._first and found.start() >= FIRST_CLAUSE_MIN_CHARS:
                return found.end()
        if len(text) <= CLAUSE_MAX_CHARS:
            return None
        soft = [found.end() for found in _SOFT.finditer(text, 0, CLAUSE_MAX_CHARS)]
        return soft[-1] if soft else max(text.rfind(" ", 1, CLAUSE_MAX_CHARS), 0) or CLAUSE_MAX_CHARS


def _ends_sentence(before: str, mark: str) -> bool:
    if mark[0] != ".":
        return True
    word = before.rsplit(" ", 1)[-1].lstrip("(\"'“‘¿¡").lower()
    if word in _ABBREVIATIONS:
        return False
    # "A. Smith" is an initial, "1. Call us" a list.
    is_initial = len(word) == 1 and word.isalpha() and word not in "iayo"
    is_list = word.isdigit() and len(word) <= 2 and before.strip() == word
    return not (is_initial or is_list)
