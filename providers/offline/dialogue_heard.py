"""What one turn of the caller means by itself: intents, yes or no, a question. Pure."""

from __future__ import annotations

from providers.offline.script import Intent, Script
from providers.offline.slot import find
from providers.offline.words import plain, similarity

CERTAIN = 0.36  # answered at once; these were tuned on tests/data/dialogue_development.yaml
CERTAIN_IN_FORM = 0.48  # leaves the question of a form for another intent
POSSIBLE = 0.2  # asked back: "did you mean ...?"
MARGIN = 0.04  # a closer second is asked back too
LESS_CERTAIN = 0.8  # of a threshold, where the second is far behind:
WIDE_MARGIN = 0.1
CERTAIN_TO_ACT = 0.45  # hangs up, or calls another tool, without a form that is confirmed
RIVAL = 0.3  # another intent this likely, and the call is not ended
YES_SIMILARITY, MIN_CLEAR_CHARS = 0.75, 5
MAX_ANSWERS = 2
MAX_YES_WORDS = 5


class Heard:
    """One turn of the caller. `words` are its plain words."""

    __slots__ = ("script", "text", "words")

    def __init__(self, script: Script, text: str) -> None:
        self.script = script
        self.text = text
        self.words = plain(text, script.lexicon)

    def wanted(self, threshold: float) -> list[Intent]:
        """The intents of the text, one for each of its parts where these are certain."""
        matcher, intents = self.script.matcher, self.script.intents
        found: list[str] = []
        for part in matcher.parts(self.text):
            first, second = (*matcher.scores(part)[:2], ("", 0.0))[:2]
            if self._is_certain(first, second, threshold) and first[0] not in found:
                found.append(first[0])
        first, second = (*matcher.scores(self.text)[:2], ("", 0.0))[:2]
        if not found and self._is_certain(first, second, threshold):
            found.append(first[0])
        # "I have an appointment but I must move it": of several forms only the one that the whole text means.
        forms = [name for name in found if intents[name].slots]
        if len(forms) > 1:
            keep = first[0] if first[0] in forms else forms[-1]
            found = [name for name in found if name == keep or not intents[name].slots]
        # A courtesy at the end ("thanks, bye") must not end a call that just asked for something.
        if len(found) > 1:
            found = [name for name in found if intents[name].tool is None or intents[name].slots] or found[:1]
        return [intents[name] for name in found[:MAX_ANSWERS]]

    def _is_certain(self, first: tuple[str, float], second: tuple[str, float], threshold: float) -> bool:
        intent = self.script.intents[first[0]]
        if intent.tool is not None and not intent.slots:
            threshold = max(threshold, CERTAIN_TO_ACT)
            if second[1] >= RIVAL:
                return False
        elif first[1] - second[1] >= WIDE_MARGIN:
            threshold *= LESS_CERTAIN
        return first[1] >= threshold and first[1] - second[1] >= MARGIN

    def leads_to(self, names: tuple[str, ...]) -> bool:
        """Whether one of the values of these slots is what the caller wants it to be: "to Friday", "Friday instead"."""
        lexicon, words = self.script.lexicon, self.words.split()
        for name in names:
            found = find(self.script.slots[name], self.text, lexicon, strict=True)
            if found is None:
                continue
            if found.start and words[found.start - 1] in lexicon.leads_to:
                return True
            # "On Wednesday, but I'd rather come on another day": Wednesday is what was.
            if any(word in lexicon.instead for word in (*words[: found.start], *words[found.end : found.end + 1])):
                return True
        return False

    def is_question(self) -> bool:
        return "?" in self.text

    def yes_or_no(self) -> str:
        """ "yes", "no" or "": by the whole text, else by its first words."""
        lexicon = self.script.lexicon
        if self.words in lexicon.yes or self.words in lexicon.no:
            return "yes" if self.words in lexicon.yes else "no"
        words = self.words.split()
        for size in range(min(4, len(words)), 0, -1):
            head = " ".join(words[:size])
            if head in lexicon.no:
                return "no"
            if head in lexicon.yes:
                return "yes"
        tail = f" {self.words} "
        if any(f" {said} " in tail for said in lexicon.no if " " in said):
            return "no"
        # "It's very loud": two words say yes only where nothing follows.
        phrases = [said for said in lexicon.yes if " " in said]
        if any(f" {said} " in tail for said in phrases if said.count(" ") > 1 or tail.endswith(f" {said} ")):
            return "yes"
        if len(words) > MAX_YES_WORDS:
            return ""
        # "The correct, please": a clear word in the middle. "Cor act": one that only sounds like it.
        clear = {said for said in lexicon.yes if len(said) >= MIN_CLEAR_CHARS and " " not in said}
        if clear & set(words):
            return "yes"
        is_heard_so = len(words) <= 2 and any(similarity("".join(words), said) >= YES_SIMILARITY for said in clear)
        return "yes" if is_heard_so else ""
