"""Saying: texts in turn, questions and what they make pending, tools."""

from __future__ import annotations

from collections.abc import Mapping

from providers.offline.dialogue_heard import Heard
from providers.offline.dialogue_state import Reply, State
from providers.offline.script import Intent, Script, fill
from providers.offline.slot_spec import Slot


class Saying:
    """The work on one turn. Methods append to `reply` and set what is pending."""

    __slots__ = ("heard", "is_answer", "misses", "reply", "script", "state")

    def __init__(self, script: Script, state: State, text: str) -> None:
        self.script = script
        self.state = state
        self.heard = Heard(script, text)
        self.reply = Reply()
        self.misses = 0
        self.is_answer = False  # to a question of a form

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
