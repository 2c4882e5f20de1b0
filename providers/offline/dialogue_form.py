"""A form: values are asked one by one, read back, corrected, and done; other questions in between are answered."""

from __future__ import annotations

from collections.abc import Callable

from providers.offline.dialogue_fill import Filling
from providers.offline.dialogue_heard import CERTAIN_IN_FORM
from providers.offline.script import Intent, fill
from providers.offline.slot import find
from providers.offline.slot_name import is_led, names_somebody
from providers.offline.slot_spec import Slot
from providers.offline.words import ordinary_stems, stem

MAX_MISSES = 3  # then on_lost
MAX_NAMED_WORDS = 6
CERTAIN_ASIDE = 0.7  # asked for in the middle of a form beside values of it
MIN_ASIDE_WORDS = 4  # shorter is a name, whatever it sounds like


class FormTurn(Filling):
    """A turn while a form is open, and the opening of one."""

    __slots__ = ()

    def run(self, intent: Intent) -> None:
        self.state.answered = intent.name if intent.answer and not intent.slots else ""
        if intent.answer:
            self.reply.parts.append(fill(self._variant(intent.name, intent.answer), self._known()))
        if intent.slots:
            self.state.form = intent.name
            self.state.deferred = []
            self.state.values = {name: value for name, value in self.state.kept.items() if name in intent.slots}
            self._fill(intent, None, lenient=False)
            if intent.new and not self.heard.leads_to(intent.new):
                # "I have an appointment on Monday, could we move it?": that is the old one.
                for name in intent.new:
                    self.state.values.pop(name, None)
            self._advance(intent)
        else:
            self._call(intent)

    def lost(self, pending: str) -> None:
        """Nothing was understood: say so, differently each time, and in the end give up."""
        misses = self.misses + 1
        self.state.misses = misses
        if misses >= MAX_MISSES and self.script.on_lost:
            self._leave_form()
            self.state.misses = 0
            self.run(self.script.intents[self.script.on_lost])
            self._follow_up([self.script.intents[self.script.on_lost]])
            return
        texts = self.script.phrases["fallback"]
        said = fill(texts[min(misses, len(texts)) - 1], {"labels": self.script.labels()})
        self._ask(pending if pending == "else" else "", said)

    def in_form(self, pending: str) -> None:
        script, state = self.script, self.state
        form = script.intents[state.form]
        if any(f" {said} " in f" {self.heard.words} " for said in script.lexicon.leave):
            self._leave_form()
            self._ask("else", f"{self._phrase('dropped')} {self._phrase('anything_else')}")
            return
        asked = script.slots[state.slot] if pending == "slot" else None
        self.is_answer = True
        answer = self.heard.yes_or_no()
        if pending == "confirm" and answer == "no" and self.heard.words.startswith(script.lexicon.no_more):
            answer = "yes"  # "that's it, thank you"
        if pending in ("confirm", "change") and not self._strictly(form) and (named := self._named(form)) is not None:
            state.values.pop(named.name, None)
            self._ask_slot(named, again=False)
            return
        if asked is not None and asked.name in state.values and answer == "yes" and not self._strictly(form):
            self._advance(form)  # it was asked for once more, and is right after all
            return
        side = self._side_intents(form)
        if side and pending == "confirm" and answer == "yes" and self._is_done_with(form, side):
            self._finish(form)
            for intent in side:
                self.run(intent)
            return
        if side and self._leads_away(form, asked, pending, answer):
            self._answer_aside(side, form, pending)
            return
        changed = self._fill(form, asked, lenient=answer != "yes" or len(self.heard.words.split()) > 2)
        if not changed and not self.reply.question and pending in ("confirm", "change") and answer != "yes":
            changed = self._correct(form)
        if pending == "confirm":
            self._confirmed(form, answer, changed)
        elif changed or self.reply.question or (pending == "change" and answer):
            self._advance(form)
        elif asked is not None and asked.name in state.values and self.misses:
            self._advance(form)  # it was asked for once more in vain, and may have been right
        elif pending == "change":
            self._miss(lambda: self._ask("change", self._phrase("change")))
        else:
            self._miss(lambda: self._ask_otherwise(form))

    def _confirmed(self, form: Intent, answer: str, changed: bool) -> None:
        is_half = answer == "yes" and self._says_more()
        if changed or self.reply.question:
            self._advance(form)
        elif self._strictly(form) and not is_half:
            self._advance(form)  # a value said once more: read it back once more
        elif is_half and self.state.is_heard and not self.misses:
            # "Yes, it's terrible" may have been "yes, it's Sarah Bell": nothing is done on half an answer.
            self._miss(lambda: self._advance(form))
        elif answer == "yes" and self.state.is_heard:
            self._finish(form)
        elif answer == "no" and self.state.is_heard:
            meant = self._meant(form)
            if meant is not None:
                self._ask_slot(meant, again=True)
            else:
                self._ask("change", self._phrase("change"))
        elif answer:
            self._advance(form)  # the question was not heard: ask it again
        else:
            self._miss(lambda: self._ask("confirm", self._phrase("yes_or_no")))

    def _is_done_with(self, form: Intent, side: list[Intent]) -> bool:
        """ "Yes, that's right. And where can I park?": the form is done, and what is asked beside it is answered."""
        is_harmless = all(not intent.slots and intent.tool is None for intent in side)
        return self.state.is_heard and is_harmless and self.heard.is_question() and not self._strictly(form)

    def _says_more(self) -> bool:
        """Whether a yes goes on to something that is not in everybody's mouth: "yes, it is ..."."""
        lexicon, said = self.script.lexicon, f" {self.heard.words} "
        goes_on = any(f" {one} " in said for one in lexicon.yes_but)
        return goes_on and any(stem(word, lexicon) not in ordinary_stems(lexicon) for word in said.split())

    def _ask_otherwise(self, form: Intent) -> None:
        """Ask once more; after that go on with the other values, and come back to this one at the end."""
        state = self.state
        missed = state.slot or form.slots[0]
        if self.misses and missed not in state.deferred and len(self._missing(form)) > 1:
            state.deferred.append(missed)
            self._advance(form)
        else:
            self._ask_slot(self.script.slots[missed], again=True)

    def _missing(self, form: Intent) -> list[str]:
        """Slots without a value, those last that were asked in vain."""
        missing = [name for name in form.slots if name not in self.state.values]
        return sorted(missing, key=lambda name: name in self.state.deferred)

    def _miss(self, again: Callable[[], None]) -> None:
        self.state.misses = self.misses + 1
        if self.state.misses >= MAX_MISSES and self.script.on_lost:
            self.lost("")
        else:
            again()

    def _named(self, form: Intent) -> Slot | None:
        """The value that the caller wants to change, named without a new one: "no, the day"."""
        words = set(self.heard.words.split())
        named = [slot for name in form.slots if words & set((slot := self.script.slots[name]).labels)]
        return named[0] if len(named) == 1 and len(words) <= MAX_NAMED_WORDS else None

    def _side_intents(self, form: Intent) -> list[Intent]:
        """Other things that are asked for in the middle of a form."""
        return [intent for intent in self.heard.wanted(CERTAIN_IN_FORM) if intent.name != form.name]

    def _leads_away(self, form: Intent, asked: Slot | None, pending: str, answer: str) -> bool:
        """Whether words that fit another intent are really about it, and no answer to what was asked."""
        lexicon, words = self.script.lexicon, self.heard.words
        if asked is not None and asked.type == "name" and (is_led(words, lexicon) or names_somebody(words, lexicon)):
            return False
        if self.heard.is_question():
            return asked is None or find(asked, self.heard.text, self.script.lexicon, strict=True) is None
        if asked is not None and asked.type not in ("name", "text") and self._is_plain(form):
            return True
        if self._strictly(form) or (answer and pending in ("confirm", "change")):
            return False
        if asked is not None and asked.type in ("name", "text"):
            return len(self.heard.words.split()) >= MIN_ASIDE_WORDS or self._is_parting()
        return asked is None or find(asked, self.heard.text, self.script.lexicon, strict=False) is None

    def _is_plain(self, form: Intent) -> bool:
        """ "It's an emergency. I've broken my tooth": surely something else, whatever values are in it."""
        best, score = self.script.matcher.scores(self.heard.text)[0]
        intent = self.script.intents[best]
        return best != form.name and score >= CERTAIN_ASIDE and not intent.slots and intent.tool is None

    def _is_parting(self) -> bool:
        """ "Goodbye" instead of a name."""
        best, score = self.script.matcher.scores(self.heard.text)[0]
        return best == self.script.on_no and score >= CERTAIN_ASIDE

    def _answer_aside(self, side: list[Intent], form: Intent, pending: str) -> None:
        self._fill(form, None, lenient=False)
        for intent in side:
            if intent.slots or intent.tool is not None:
                self._leave_form()
                self.run(intent)
                self._follow_up([intent])
                return
            self.run(intent)
        if not self.reply.question:
            self._advance(form)

    def _advance(self, form: Intent) -> None:
        """Ask for the next missing value, or confirm, or be done."""
        if self.reply.question:
            return
        missing = self._missing(form)
        if missing:
            name = missing[0]
            if name == self.state.slot and self.misses and len(missing) > 1:
                # Something else was said than what was asked, twice: that comes later.
                self.state.deferred.append(name)
                name = missing[1]
            self._ask_slot(self.script.slots[name], again=name in self.state.deferred)
            return
        if form.confirm:
            self._ask("confirm", fill(form.confirm, self._known()))
        else:
            self._finish(form)

    def _finish(self, form: Intent) -> None:
        self.reply.parts.append(fill(self._variant(f"done {form.name}", form.done), self._known()))
        self._call(form)
        self._leave_form()
        self._follow_up([form])

    def _leave_form(self) -> None:
        self.state.form = self.state.slot = ""
        self.state.values = {}
        self.state.deferred = []
