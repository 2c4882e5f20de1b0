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

from collections.abc import Mapping
from dataclasses import dataclass, field

from providers.offline.script import Intent, Script, Tool, fill
from providers.offline.slot import Slot, find, is_led
from providers.offline.words import plain, similarity

CERTAIN = 0.36  # answered at once; these were tuned on tests/data/dialogue_development.yaml
CERTAIN_IN_FORM = 0.48  # leaves the question of a form for another intent
POSSIBLE = 0.2  # asked back: "did you mean ...?"
MARGIN = 0.04  # a closer second is asked back too
LESS_CERTAIN = 0.8  # of a threshold, where the second is far behind:
WIDE_MARGIN = 0.1
CERTAIN_TO_ACT = 0.45  # hangs up, or calls another tool, without a form that is confirmed
YES_SIMILARITY, MIN_CLEAR_CHARS = 0.75, 5
BEGINNING = ("date", "time", "choice")  # kinds of values that begin a form by themselves
MAX_OTHER_WORDS = 1
LIKELY = 0.27  # an answer that does nothing is given at once
RIVAL = 0.3  # another intent this likely, and the call is not ended
MAX_ANSWERS = 2
MAX_MISSES = 3  # then on_lost
MAX_YES_WORDS = 5
MAX_NAMED_WORDS = 6
MIN_ASIDE_WORDS = 4  # shorter is a name, whatever it sounds like


@dataclass(slots=True)
class State:
    """All that is known after some turns.

    `pending` is what was asked last: slot, confirm, change, mean or else. `deferred` are slots that were asked in vain:
    the others come first. `guessed` is the intent of the last answer that was only likely to be the right one,
    `answered` that of the last answer.
    """

    form: str = ""
    values: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    pending: str = ""
    slot: str = ""
    options: tuple[str, ...] = ()
    is_heard: bool = True
    misses: int = 0
    guessed: str = ""
    answered: str = ""
    uses: dict[str, int] = field(default_factory=dict)
    deferred: list[str] = field(default_factory=list)
    last: tuple[str, str] = ("", "")


@dataclass(slots=True)
class Reply:
    """What to say: `parts` in order, then `question`. `tool` is called after it, with `arguments`."""

    parts: list[str] = field(default_factory=list)
    question: str = ""
    tool: Tool | None = None
    arguments: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return " ".join(one for one in (*self.parts, self.question) if one)


def step(script: Script, state: State, text: str) -> Reply:
    """Take one turn of the caller. Changes `state`."""
    turn = _Turn(script, state, text)
    if turn.asks_again():
        return turn.reply
    pending, state.pending = state.pending, ""
    misses, state.misses = state.misses, 0
    turn.misses = misses
    if not turn.words:
        turn.lost(pending)
    elif state.form:
        turn.in_form(pending)
    elif pending == "mean" and turn.chose_meaning():
        pass
    else:
        turn.free(pending)
    state.is_heard = True
    # What "say that again" repeats: the last part and the question.
    state.last = (turn.reply.parts[-1] if turn.reply.parts else "", turn.reply.question)
    return turn.reply


class _Turn:
    """The work on one turn. Methods append to `reply` and set what is pending."""

    __slots__ = ("changed", "misses", "reply", "script", "state", "text", "words")

    def __init__(self, script: Script, state: State, text: str) -> None:
        self.script = script
        self.state = state
        self.text = text
        self.words = plain(text, script.lexicon)
        self.reply = Reply()
        self.misses = 0
        self.changed = False

    def asks_again(self) -> bool:
        """Say the last reply once more, if that is what the caller wants; nothing else changes."""
        wanted = self._wanted(CERTAIN)
        if not wanted or not wanted[0].repeat or not any(self.state.last):
            return False
        self.reply.parts = [*wanted[0].answer[:1], self.state.last[0]]
        self.reply.question = self.state.last[1]
        return True

    # ── no form is open ──

    def free(self, pending: str) -> None:
        wanted = self._wanted(CERTAIN)
        answer = self._yes_or_no() if pending == "else" and self.state.is_heard else ""
        if answer == "no" and (not wanted or len(self.words.split()) <= MAX_YES_WORDS) and self.script.on_no:
            self._run(self.script.intents[self.script.on_no])
        elif answer == "yes" and not wanted:
            self._ask("else", self._phrase("go_on"))
        elif pending == "else" and not self.state.is_heard and not wanted and self._yes_or_no():
            # "That's correct. Yes, please": it was meant for the question before, and our answer to that was cut off.
            self.reply.parts = [self.state.last[0]]
            self._ask("else", self.state.last[1])
        elif self.words in (*self.script.lexicon.yes, *self.script.lexicon.no):
            self._ask("else", self._phrase("help"))
        elif (same := self._same_of_another_value()) is not None:
            self._run(same)
            self._follow_up([same])
        elif wanted:
            for intent in wanted:
                self._run(intent)
                if self.state.form:
                    break
            self._follow_up(wanted)
        elif (begun := self._form_of_values()) is not None:
            self._run(begun)
        else:
            self._unsure(pending)

    def chose_meaning(self) -> bool:
        """The answer to "did you mean"; False when it is something new."""
        options, self.state.options = self.state.options, ()
        answer = self._yes_or_no() if self.state.is_heard else ""
        lexicon = self.script.lexicon
        chosen = ""
        if len(options) > 1 and any(one in self.words.split() for one in lexicon.first):
            chosen = options[0]
        elif len(options) > 1 and any(one in self.words.split() for one in lexicon.second):
            chosen = options[1]
        elif answer == "yes" and len(options) == 1:
            chosen = options[0]
        else:
            best, score = self.script.matcher.scores(self.text)[0]
            chosen = best if score >= POSSIBLE and best in options else ""
        if chosen:
            intent = self.script.intents[chosen]
            self._run(intent)
            self._follow_up([intent])
        elif answer == "no" and len(self.words.split()) <= MAX_YES_WORDS:
            self._ask("", self._phrase("rephrase"))
        else:
            return False
        return True

    def _form_of_values(self) -> Intent | None:
        """The form that a bare value belongs to, the first that asks for it: "next Thursday", "a cleaning please"."""
        slots, lexicon = self.script.slots, self.script.lexicon
        given: set[str] = set()
        words = self.words.split()
        for name, slot in slots.items():
            found = find(slot, self.text, lexicon, strict=True) if slot.type in BEGINNING else None
            if found is not None:
                given.add(name)
                words[found.start : found.end] = ["_"] * (found.end - found.start)
        # Among other words that say something a value is only mentioned.
        if sum(word != "_" and word not in lexicon.stop_words for word in words) > MAX_OTHER_WORDS:
            return None
        forms = [intent for intent in self.script.intents.values() if given & set(intent.slots)]
        return max(forms, key=lambda intent: len(given & set(intent.slots)), default=None)

    def _same_of_another_value(self) -> Intent | None:
        """What was answered last, asked once more with another value: "and on Saturdays?"."""
        last = self.script.intents.get(self.state.answered)
        lead = max((one for one in self.script.lexicon.and_what_of if self.words.startswith(one)), key=len, default="")
        if last is None or not (lead or self._is_question()):
            return None
        words = self.words.split()
        words[: lead.count(" ")] = ["_"] * lead.count(" ")
        kinds = set()
        for slot in self.script.slots.values():
            found = find(slot, self.text, self.script.lexicon, strict=True) if slot.type in BEGINNING else None
            if found is not None:
                kinds.add(slot.name)
                words[found.start : found.end] = ["_"] * (found.end - found.start)
        if any(word != "_" and word not in self.script.lexicon.stop_words for word in words):
            return None
        takes = {name for name in kinds if any(f"{{{name}}}" in one for one in last.examples)}
        return last if takes else None

    def _unsure(self, pending: str) -> None:
        ranked = self.script.matcher.scores(self.text)
        near = [name for name, score in ranked[:2] if score >= POSSIBLE and self.script.intents[name].label]
        if near and len(near) == 2 and ranked[0][1] - ranked[1][1] > 2 * MARGIN:
            near = near[:1]
        if not near or self.misses:
            self.lost(pending)
            return
        # An answer costs the caller less than a question about the question; the same once more would not help.
        likeliest = self.script.intents[near[0]]
        is_harmless = not likeliest.slots and likeliest.tool is None and likeliest.name != self.state.guessed
        if ranked[0][1] >= LIKELY and is_harmless:
            self.state.guessed = likeliest.name
            self._run(likeliest)
            self._follow_up([likeliest])
            return
        self.state.misses = self.misses + 1
        options = f" {self._phrase('or')} ".join(self.script.intents[name].label for name in near)
        self.state.options = tuple(near)
        self._ask("mean", fill(self._phrase("did_you_mean"), {"options": options}))

    def lost(self, pending: str) -> None:
        """Nothing was understood: say so, differently each time, and in the end give up."""
        misses = self.misses + 1
        self.state.misses = misses
        if misses >= MAX_MISSES and self.script.on_lost:
            self._leave_form()
            self.state.misses = 0
            self._run(self.script.intents[self.script.on_lost])
            self._follow_up([self.script.intents[self.script.on_lost]])
            return
        texts = self.script.phrases["fallback"]
        said = fill(texts[min(misses, len(texts)) - 1], {"labels": self.script.labels()})
        self._ask(pending if pending == "else" else "", said)

    # ── a form is open ──

    def in_form(self, pending: str) -> None:
        script, state = self.script, self.state
        form = script.intents[state.form]
        if any(f" {said} " in f" {self.words} " for said in script.lexicon.leave):
            self._leave_form()
            self._ask("else", f"{self._phrase('dropped')} {self._phrase('anything_else')}")
            return
        asked = script.slots[state.slot] if pending == "slot" else None
        answer = self._yes_or_no()
        if pending in ("confirm", "change") and not self._strictly(form) and (named := self._named(form)) is not None:
            state.values.pop(named.name, None)
            self._ask_slot(named, again=False)
            return
        side = self._side_intents(form)
        if side and self._leads_away(form, asked, pending, answer):
            self._answer_aside(side, form, pending)
            return
        changed = self._fill(form, asked, lenient=answer != "yes" or len(self.words.split()) > 2)
        if not changed and not self.reply.question and pending in ("confirm", "change") and answer != "yes":
            changed = self._correct(form)
        self.changed = changed and asked is not None and asked.name not in state.values
        if pending == "confirm":
            self._confirmed(form, answer, changed)
        elif changed or self.reply.question or (pending == "change" and answer):
            self._advance(form)
        elif pending == "change":
            self._miss(form, lambda: self._ask("change", self._phrase("change")))
        else:
            self._miss(form, lambda: self._ask_otherwise(form))

    def _confirmed(self, form: Intent, answer: str, changed: bool) -> None:
        if changed or self.reply.question:
            self._advance(form)
        elif answer == "yes" and self.state.is_heard:
            self._finish(form)
        elif answer == "no" and self.state.is_heard:
            self._ask("change", self._phrase("change"))
        elif answer:
            self._advance(form)  # the question was not heard: ask it again
        else:
            self._miss(form, lambda: self._ask("confirm", self._phrase("yes_or_no")))

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

    def _miss(self, form: Intent, again: object) -> None:
        self.state.misses = self.misses + 1
        if self.state.misses >= MAX_MISSES and self.script.on_lost:
            self.lost("")
        elif callable(again):
            again()

    def _named(self, form: Intent) -> Slot | None:
        """The value that the caller wants to change, named without a new one: "no, the day"."""
        words = set(self.words.split())
        named = [slot for name in form.slots if words & set((slot := self.script.slots[name]).labels)]
        return named[0] if len(named) == 1 and len(words) <= MAX_NAMED_WORDS else None

    def _side_intents(self, form: Intent) -> list[Intent]:
        """Other things that are asked for in the middle of a form."""
        return [intent for intent in self._wanted(CERTAIN_IN_FORM) if intent.name != form.name]

    def _leads_away(self, form: Intent, asked: Slot | None, pending: str, answer: str) -> bool:
        """Whether words that fit another intent are really about it, and no answer to what was asked."""
        if asked is not None and asked.type == "name" and is_led(self.words, self.script.lexicon):
            return False
        if self._is_question():
            return not (asked is not None and find(asked, self.text, self.script.lexicon, strict=True) is not None)
        if self._strictly(form) or (answer and pending in ("confirm", "change")):
            return False
        if asked is not None and asked.type in ("name", "text"):
            return len(self.words.split()) >= MIN_ASIDE_WORDS
        return asked is None or find(asked, self.text, self.script.lexicon, strict=False) is None

    def _answer_aside(self, side: list[Intent], form: Intent, pending: str) -> None:
        self._fill(form, None, lenient=False)
        for intent in side:
            if intent.slots or intent.tool is not None:
                self._leave_form()
                self._run(intent)
                self._follow_up([intent])
                return
            self._run(intent)
        if not self.reply.question:
            self._advance(form)

    def _fill(self, form: Intent, asked: Slot | None, *, lenient: bool) -> bool:
        """Take the values in the text: sure ones anywhere, then the asked one from what is left."""
        used: set[int] = set()
        changed = False
        order = sorted((self.script.slots[name] for name in form.slots), key=lambda slot: _ORDER[slot.type])
        for slot in order:
            found = find(slot, self.text, self.script.lexicon, strict=True, used=frozenset(used))
            if found is not None:
                used |= set(range(found.start, found.end))
                changed |= self._take(slot, found.value)
        if asked is not None and asked.name not in self.state.values and lenient and not self.reply.question:
            found = find(asked, self.text, self.script.lexicon, strict=False, used=frozenset(used))
            if found is not None:
                changed |= self._take(asked, found.value)
        return changed

    def _correct(self, form: Intent) -> bool:
        """After a read-back a bare value is the right one: "no, Helen Parker"."""
        lexicon = self.script.lexicon
        words = self.words.split()
        head = max((said.count(" ") + 1 for said in lexicon.no if f"{self.words} ".startswith(f"{said} ")), default=0)
        rest = " ".join(self.text.split()[head:])
        if not rest or len(words) - head > MAX_NAMED_WORDS:
            return False
        slots = (self.script.slots[name] for name in form.slots)
        for slot in sorted(slots, key=lambda one: _ORDER[one.type]):
            if slot.type == "text" or (slot.type == "name" and not rest[:1].isupper() and not is_led(rest, lexicon)):
                continue
            found = find(slot, rest, lexicon, strict=False)
            if found is not None:
                return self._take(slot, found.value)
        return False

    def _strictly(self, form: Intent) -> bool:
        lexicon, slots = self.script.lexicon, self.script.slots
        return any(find(slots[name], self.text, lexicon, strict=True) is not None for name in form.slots)

    def _take(self, slot: Slot, value: str) -> bool:
        """Accept, or say why not and ask again."""
        refusal = self._refusal(slot, value)
        if refusal:
            self.reply.parts.append(fill(refusal, {**self.script.facts, slot.name: value}))
            self.state.values.pop(slot.name, None)
            self._ask_slot(slot, again=True)
            return False
        changed = self.state.values.get(slot.name) != value
        self.state.values[slot.name] = value
        if slot.keep:
            self.state.kept[slot.name] = value
        return changed

    def _refusal(self, slot: Slot, value: str) -> str:
        for word, why in slot.refuse.items():
            if word in value.lower():
                return why
        if slot.type == "number" and not slot.low <= int(value) <= slot.high:
            return slot.invalid
        if slot.type == "digits" and not slot.low <= len(value.replace(" ", "")) <= slot.high:
            return slot.invalid
        return ""

    def _advance(self, form: Intent) -> None:
        """Ask for the next missing value, or confirm, or be done."""
        if self.reply.question:
            return
        missing = self._missing(form)
        if missing:
            name = missing[0]
            if name == self.state.slot and (self.misses or self.changed) and len(missing) > 1:
                # Something else was said than what was asked: that comes later.
                self.state.deferred.append(name)
                name = missing[1]
            self._ask_slot(self.script.slots[name], again=name in self.state.deferred or name == self.state.slot)
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

    # ── saying ──

    def _run(self, intent: Intent) -> None:
        self.state.answered = intent.name if intent.answer and not intent.slots else ""
        if intent.answer:
            self.reply.parts.append(fill(self._variant(intent.name, intent.answer), self._known()))
        if intent.slots:
            self.state.form = intent.name
            self.state.deferred = []
            self.state.values = {name: value for name, value in self.state.kept.items() if name in intent.slots}
            self._fill(intent, None, lenient=False)
            self._advance(intent)
        else:
            self._call(intent)

    def _call(self, intent: Intent) -> None:
        if intent.tool is not None:
            self.reply.tool = intent.tool
            known = self._known()
            self.reply.arguments = {name: fill(text, known) for name, text in intent.tool.arguments.items()}

    def _follow_up(self, intents: list[Intent]) -> None:
        if self.reply.question or self.state.form or (self.reply.tool is not None and not self.reply.parts):
            return
        if all(intent.follow_up for intent in intents):
            self._ask("else", self._variant("anything_else", self.script.phrases["anything_else"]))

    def _ask(self, pending: str, question: str) -> None:
        self.state.pending = pending
        self.reply.question = question

    def _ask_slot(self, slot: Slot, *, again: bool) -> None:
        self.state.slot = slot.name
        self._ask("slot", self._variant(f"ask {slot.name}", slot.reask if again else slot.ask))

    def _phrase(self, name: str) -> str:
        return self._variant(name, self.script.phrases[name])

    def _variant(self, key: str, texts: tuple[str, ...]) -> str:
        """The texts of one kind in turn, so that a caller does not hear the same twice in a row."""
        count = self.state.uses.get(key, 0)
        self.state.uses[key] = count + 1
        return texts[count % len(texts)]

    def _known(self) -> Mapping[str, str]:
        return {**self.script.facts, **self.state.kept, **self.state.values}

    # ── understanding ──

    def _wanted(self, threshold: float) -> list[Intent]:
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

    def _is_question(self) -> bool:
        return "?" in self.text

    def _yes_or_no(self) -> str:
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
        if any(f" {said} " in tail for said in lexicon.yes if " " in said):
            return "yes"
        if len(words) > MAX_YES_WORDS:
            return ""
        # "The correct, please": a clear word in the middle. "Cor act": one that only sounds like it.
        clear = {said for said in lexicon.yes if len(said) >= MIN_CLEAR_CHARS and " " not in said}
        if clear & set(words):
            return "yes"
        is_heard_so = len(words) <= 2 and any(similarity("".join(words), said) >= YES_SIMILARITY for said in clear)
        return "yes" if is_heard_so else ""


# Surer kinds first: what they use is not taken for something else ("at eight" is no count of people).
_ORDER = {"date": 0, "time": 1, "number": 2, "digits": 3, "choice": 4, "name": 5, "text": 6}
