"""What is known after some turns of a scripted dialogue, and what is said next."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from providers.offline.script import Tool


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

    def copy(self) -> State:
        """A state of its own, for a turn that may be taken back."""
        return replace(
            self, values=dict(self.values), kept=dict(self.kept), uses=dict(self.uses), deferred=list(self.deferred)
        )


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
