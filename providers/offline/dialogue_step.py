"""One turn of a scripted dialogue: what the caller means, given what was asked; what to say next. Pure.

    state + heard text → step → state' + Reply(parts, question, tool)

    ┌────────┐ form  ┌─────────────┐ full  ┌──────────┐ yes  ┌──────┐
    │ no form│──────→│ asks a slot │──────→│ confirms │─────→│ done │──→ anything else?
    └────────┘       └─────────────┘       └──────────┘      └──────┘
        ↑  answers, "did you mean", fallback    │ no: what should I change?
        └────── never mind ─────────────────────┘

A question that the caller did not hear to its end (barge-in) is marked, and "yes" or "no" does not answer it: nothing
is booked by a word that was meant for something else.
"""

from __future__ import annotations

from providers.offline.dialogue_form import FormTurn
from providers.offline.dialogue_heard import CERTAIN, MARGIN, MAX_YES_WORDS, POSSIBLE
from providers.offline.dialogue_state import Reply, State
from providers.offline.script import Intent, Script, fill
from providers.offline.slot import find

BEGINNING = ("date", "time", "choice")  # kinds of values that begin a form by themselves
MAX_OTHER_WORDS = 1
MAX_PARTING_WORDS = 3
SURELY = 0.6
LIKELY = 0.27  # an answer that does nothing is given at once


def step(script: Script, state: State, text: str) -> Reply:
    """Take one turn of the caller. Changes `state`."""
    turn = _Turn(script, state, text)
    if turn.asks_again():
        return turn.reply
    pending, state.pending = state.pending, ""
    misses, state.misses = state.misses, 0
    turn.misses = misses
    if not turn.heard.words:
        turn.lost(pending)
    elif state.form:
        turn.in_form(pending)
    elif pending == "mean" and turn.chose_meaning():
        pass
    else:
        turn.free(pending)
    state.is_heard = True
    # What "say that again" repeats: the last part and the question; not that we did not understand, or may help.
    if turn.reply.parts or state.form or state.pending == "mean" or not any(state.last):
        state.last = (turn.reply.parts[-1] if turn.reply.parts else "", turn.reply.question)
    return turn.reply


class _Turn(FormTurn):
    """A turn in any state."""

    __slots__ = ()

    def asks_again(self) -> bool:
        """Say the last reply once more, if that is what the caller wants; nothing else changes."""
        wanted = self.heard.wanted(CERTAIN)
        if not wanted or not wanted[0].repeat or not any(self.state.last):
            return False
        self.reply.parts = [*wanted[0].answer[:1], self.state.last[0]]
        self.reply.question = self.state.last[1]
        return True

    # ── no form is open ──

    def free(self, pending: str) -> None:
        wanted = self.heard.wanted(CERTAIN)
        if not self.state.uses and len(self.heard.words.split()) > MAX_PARTING_WORDS:
            # "Hi" is heard as "bye": nobody calls to say goodbye, and then more.
            wanted = [one for one in wanted if one.tool is None or one.slots]
        answer = self.heard.yes_or_no() if pending == "else" and self.state.is_heard else ""
        if self.script.on_no and self._has_all(answer, wanted):
            self.run(self.script.intents[self.script.on_no])
        elif answer == "yes" and not wanted:
            self._ask("else", self._phrase("go_on"))
        elif pending == "else" and not self.state.is_heard and not wanted and self.heard.yes_or_no():
            # "That's correct. Yes, please": it was meant for the question before, and our answer to that was cut off.
            self.reply.parts = [self.state.last[0]]
            self._ask("else", self.state.last[1])
        elif self.heard.words in (*self.script.lexicon.yes, *self.script.lexicon.no):
            self._ask("else", self._phrase("help"))
        elif (same := self._same_of_another_value()) is not None:
            self.run(same)
            self._follow_up([same])
        elif not self.heard.is_question() and (begun := self._form_of_values(least=2)) is not None:
            self.run(begun)
        elif wanted:
            for intent in self._in_order(wanted):
                self.run(intent)
                if self.state.form:
                    break
            self._follow_up(wanted)
        elif (begun := self._form_of_values()) is not None:
            self.run(begun)
        else:
            self._unsure(pending)

    def _has_all(self, answer: str, wanted: list[Intent]) -> bool:
        """Whether there is nothing else. "Right, thanks" is a yes to the answer, and not to that question."""
        if answer == "no":
            return not wanted or len(self.heard.words.split()) <= MAX_YES_WORDS
        if answer != "yes" or wanted:
            return False
        words, lexicon = self.heard.words.split(), self.script.lexicon
        return words[0] not in lexicon.wants + lexicon.thanks and any(word in lexicon.thanks for word in words)

    def _in_order(self, wanted: list[Intent]) -> list[Intent]:
        """ "She wants a cleaning. What does that cost?": what is asked is answered before the questions of a form."""
        if not any(one.slots for one in wanted):
            return wanted
        last = self.script.matcher.parts(self.heard.text)[-1]
        asked = self.script.matcher.scores(last)[0][0] if self.heard.text.rstrip().endswith("?") else ""
        told = {name for part in self.script.matcher.parts(self.heard.text) for name in self._surely(part)}
        if any(one.name in told and not one.slots and one.name != asked for one in wanted):
            return [one for one in wanted if one.name in told]
        kept = (one for one in wanted if one.slots or one.name == asked)
        return sorted(kept, key=lambda one: bool(one.slots))

    def _surely(self, part: str) -> tuple[str, ...]:
        """The answer that a sentence asks for beyond doubt: an emergency, whatever is wanted in the next one."""
        name, score = self.script.matcher.scores(part)[0]
        return (name,) if score >= SURELY else ()

    def chose_meaning(self) -> bool:
        """The answer to "did you mean"; False when it is something new."""
        options, self.state.options = self.state.options, ()
        answer = self.heard.yes_or_no() if self.state.is_heard else ""
        lexicon = self.script.lexicon
        chosen = ""
        if len(options) > 1 and any(one in self.heard.words.split() for one in lexicon.first):
            chosen = options[0]
        elif len(options) > 1 and any(one in self.heard.words.split() for one in lexicon.second):
            chosen = options[1]
        elif answer == "yes" and len(options) == 1:
            chosen = options[0]
        else:
            best, score = self.script.matcher.scores(self.heard.text)[0]
            chosen = best if score >= POSSIBLE and best in options else ""
        if chosen:
            intent = self.script.intents[chosen]
            self.run(intent)
            self._follow_up([intent])
        elif answer == "no" and len(self.heard.words.split()) <= MAX_YES_WORDS:
            self._ask("", self._phrase("rephrase"))
        else:
            return False
        return True

    def _form_of_values(self, least: int = 1) -> Intent | None:
        """The form that bare values belong to, the first that asks for them: "next Thursday", "a cleaning please"."""
        lexicon = self.script.lexicon
        given, words = self._values()
        if len(given) < least:
            return None
        # Among other words that say something a value is only mentioned.
        if sum(word != "_" and word not in lexicon.stop_words for word in words) > MAX_OTHER_WORDS:
            return None
        forms = [intent for intent in self.script.intents.values() if given & set(intent.slots)]
        return max(forms, key=lambda intent: len(given & set(intent.slots)), default=None)

    def _same_of_another_value(self) -> Intent | None:
        """What was answered last, asked once more with another value: "and on Saturdays?"."""
        last = self.script.intents.get(self.state.answered)
        leads = (one for one in self.script.lexicon.and_what_of if self.heard.words.startswith(one))
        lead = max(leads, key=len, default="")
        if last is None or not (lead or self.heard.is_question()):
            return None
        given, words = self._values()
        words[: lead.count(" ")] = ["_"] * lead.count(" ")
        if any(word != "_" and word not in self.script.lexicon.stop_words for word in words):
            return None
        return last if _takes(last, given) else None

    def _about_values(self) -> Intent | None:
        """The only answer that speaks of such a value: of "on their own Sundays" a day is all that was understood."""
        given, _ = self._values()
        answers = (one for one in self.script.intents.values() if one.answer and not one.slots and one.tool is None)
        about = [one for one in answers if _takes(one, given)]
        return about[0] if len(about) == 1 else None

    def _values(self) -> tuple[set[str], list[str]]:
        """The slots whose values are in the text, and its words with "_" in the place of these."""
        given: set[str] = set()
        words = self.heard.words.split()
        for name, slot in self.script.slots.items():
            found = None
            if slot.type in BEGINNING:
                found = find(slot, self.heard.text, self.script.lexicon, strict=True)
            if found is not None:
                given.add(name)
                words[found.start : found.end] = ["_"] * (found.end - found.start)
        return given, words

    def _unsure(self, pending: str) -> None:
        ranked = self.script.matcher.scores(self.heard.text)
        near = [name for name, score in ranked[:2] if score >= POSSIBLE and self.script.intents[name].label]
        given, _ = self._values()
        forms = [name for name in near if set(self.script.intents[name].slots) >= given]
        if len(given) > 1 and forms and not self.heard.is_question():
            # "Whitening on Monday at one, I'm ...": nobody asks about two values.
            self.run(self.script.intents[forms[0]])
            return
        if near and len(near) == 2 and ranked[0][1] - ranked[1][1] > 2 * MARGIN:
            near = near[:1]
        if not near and (about := self._about_values()) is not None and about.name != self.state.guessed:
            self.state.guessed = about.name
            self.run(about)
            self._follow_up([about])
            return
        if not near or self.misses:
            self.lost(pending)
            return
        # An answer costs the caller less than a question about the question; the same once more would not help.
        likeliest = self.script.intents[near[0]]
        is_harmless = not likeliest.slots and likeliest.tool is None and likeliest.name != self.state.guessed
        if ranked[0][1] >= LIKELY and is_harmless:
            self.state.guessed = likeliest.name
            self.run(likeliest)
            self._follow_up([likeliest])
            return
        self.state.misses = self.misses + 1
        options = f" {self._phrase('or')} ".join(self.script.intents[name].label for name in near)
        self.state.options = tuple(near)
        self._ask("mean", fill(self._phrase("did_you_mean"), {"options": options}))


def _takes(intent: Intent, given: set[str]) -> bool:
    """Whether callers give such a value when they ask for this."""
    return any(f"{{{name}}}" in one for name in given for one in intent.examples)
