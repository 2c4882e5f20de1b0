"""Taking values out of what a caller says: sure ones anywhere, the asked one from what is left, corrected ones."""

from __future__ import annotations

from providers.offline.dialogue_saying import Saying
from providers.offline.name_sense import is_a_name
from providers.offline.script import Intent, fill
from providers.offline.slot import find, resemblance
from providers.offline.slot_name import is_led, names_somebody
from providers.offline.slot_spec import Found, Slot
from providers.offline.slot_time import is_part_of_day
from providers.offline.words import plain

RESEMBLES = 0.6  # a misheard value that is like one of a kind
MAX_CORRECTION_WORDS = 8
# Surer kinds first: what they use is not taken for something else ("at eight" is no count of people).
_ORDER = {"date": 0, "time": 1, "number": 2, "digits": 3, "choice": 4, "name": 5, "text": 6}


class Filling(Saying):
    """A turn that may give values of the open form."""

    __slots__ = ()

    def _fill(self, form: Intent, asked: Slot | None, *, lenient: bool) -> bool:
        """Take the values in the text: sure ones anywhere, then the asked one from what is left."""
        used: set[int] = set()
        changed = False
        taken: set[str] = set()
        for slot in self._in_order_of_sureness(form, asked):
            is_bare = slot is asked and slot.type == "name" and names_somebody(self.heard.words, self.script.lexicon)
            found = find(slot, self.heard.text, self.script.lexicon, strict=not is_bare, used=frozenset(used))
            if found is not None and self.is_answer and lenient and is_part_of_day(found):
                # "At you in the afternoon": in an answer the hour is looked for beside it.
                found = find(slot, self.heard.text, self.script.lexicon, strict=False, used=frozenset(used))
            if found is not None:
                used |= set(range(found.start, found.end))
                if not self._is_vague(slot, found, asked):
                    changed |= self._take(slot, found.value)
                    taken.add(slot.name)
        if asked is not None and asked.name not in taken and lenient and not self.reply.question:
            found = find(asked, self.heard.text, self.script.lexicon, strict=False, used=frozenset(used))
            if found is not None and not self._is_vague(asked, found, asked):
                changed |= self._take(asked, found.value)
        return changed

    def _in_order_of_sureness(self, form: Intent, asked: Slot | None) -> list[Slot]:
        """What stands after "my name is", and a first name with another one, is a name, whatever it sounds like."""
        lexicon, words = self.script.lexicon, self.heard.words
        is_asked = asked is not None and asked.type == "name"
        is_name = is_led(words, lexicon) or (is_asked and names_somebody(words, lexicon))
        slots = (self.script.slots[name] for name in form.slots)
        return sorted(slots, key=lambda slot: -1 if is_name and slot.type == "name" else _ORDER[slot.type])

    def _is_vague(self, slot: Slot, found: Found, asked: Slot | None) -> bool:
        """ "On Wednesday morning": the hour is asked for. "Then Watson" is hardly a name. Asked again, it will do."""
        if slot.type == "choice":
            # What we know is not changed by a word that only sounds like something else, in answer to another question.
            return not found.is_sure and slot.name in self.state.values and asked not in (slot, None)
        return (is_part_of_day(found) or not found.is_sure) and not (asked is slot and self.misses)

    def _correct(self, form: Intent) -> bool:
        """After a read-back a bare value is the right one: "no, Helen Parker"."""
        lexicon, said = self.script.lexicon, f"{self.heard.words} "
        words = said.split()
        head = max((one.count(" ") + 1 for one in lexicon.no if said.startswith(f"{one} ")), default=0)
        rest = " ".join(self.heard.text.split()[head:])
        if not rest or len(words) - head > MAX_CORRECTION_WORDS:
            return False
        said_plainly = plain(rest, lexicon)
        is_name = any(is_a_name(one, lexicon) for one in said_plainly.split()) or said_plainly.startswith(lexicon.i_am)
        slots = (self.script.slots[name] for name in form.slots)
        for slot in sorted(slots, key=lambda one: -1 if is_name and one.type == "name" else _ORDER[one.type]):
            # "Select", for "correct": without a no, one strange word is no name.
            is_bare = rest[:1].isupper() and (head > 0 or len(said_plainly.split()) > 1)
            is_named = is_name or is_bare or is_led(said_plainly, lexicon)
            if slot.type == "text" or (slot.type == "name" and not is_named):
                continue
            found = find(slot, rest, lexicon, strict=False)
            if found is not None and is_name and not found.is_sure:
                return False  # "no, I'm thirty Adam": a name, and no day
            if found is not None and (found.is_sure or slot.type == "choice") and not is_part_of_day(found):
                self._take(slot, found.value)
                return True  # also when it is what we have: it is read back once more
        return False

    def _meant(self, form: Intent) -> Slot | None:
        """The value that a "no" with misheard words is most probably about; None when they resemble none."""
        lexicon, words = self.script.lexicon, self.heard.words.split()
        likely: list[tuple[float, str]] = []
        for name in form.slots:
            likely.append((resemblance(self.script.slots[name], words, lexicon), name))
        best = max(likely)
        return self.script.slots[best[1]] if best[0] >= RESEMBLES else None

    def _strictly(self, form: Intent) -> bool:
        lexicon, slots = self.script.lexicon, self.script.slots
        return any(find(slots[name], self.heard.text, lexicon, strict=True) is not None for name in form.slots)

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
