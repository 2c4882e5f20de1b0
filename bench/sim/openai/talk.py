"""A model that says what its prompt tells it to: the lines after a dash, one a turn, in their order, again and again.

What the caller said decides nothing but whose turn it is, so the answers of a bench about turns are known beforehand.
"""

from __future__ import annotations

from bench.sim.openai.answer import Answer, Json, text_of

MARK = "- "


class TalkBrain:
    """Says the lines of the system prompt that begin with MARK; without any a short one of its own."""

    __slots__ = ()

    def answer(self, request: Json) -> Answer:
        messages = request["messages"]
        prompt = "\n".join(text_of(one) for one in messages if one["role"] == "system")
        lines = [line.removeprefix(MARK).strip() for line in prompt.splitlines() if line.startswith(MARK)]
        turns = sum(one["role"] == "user" for one in messages)
        return Answer(text=lines[(turns - 1) % len(lines)] if lines else "I see.")
