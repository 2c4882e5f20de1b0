"""One thing that the agent says: a reply as it streams, or a fixed text, clause by clause until it was heard."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from server.dialogue.clauses import ClauseSplitter
from server.dialogue.history import heard_part

Kind = Literal["reply", "opening", "idle", "goodbye", "notice", "apology", "repeat"]


@dataclass(slots=True)
class Clause:
    """`samples` is None until the clause is rendered; `heard` is None while that is not settled.

    A filler is said while the reply is waited for, and comes before it.
    """

    clause_no: int
    text: str
    samples: int | None = None
    heard: str | None = None
    is_filler: bool = False


@dataclass(slots=True)
class AgentSpeech:
    """What is being said. `then`: leave the call for this reason once heard. `complete`: no clause will follow.

    `awaits_tools`: no words of it are there yet, a tool is at work. `called_tools`: so many calls of
    tools its words came with.
    """

    kind: Kind
    reply_no: int = 0
    protected: bool = False
    then: str = ""
    complete: bool = False
    audible: bool = False
    awaits_tools: bool = False
    called_tools: int = 0
    began_ns: int = 0
    clauses: list[Clause] = field(default_factory=list)
    splitter: ClauseSplitter = field(default_factory=ClauseSplitter)

    def clause(self, clause_no: int) -> Clause | None:
        for one in self.clauses:
            if one.clause_no == clause_no:
                return one
        return None

    def is_first(self, clause_no: int) -> bool:
        """Whether this clause is the first of what is really said."""
        return next((one.clause_no for one in self.clauses if not one.is_filler), None) == clause_no

    @property
    def has_words(self) -> bool:
        """Something was said beside fillers."""
        return any(not one.is_filler for one in self.clauses)

    def is_over(self) -> bool:
        """Every clause was heard or given up, and none will follow."""
        return self.complete and all(one.heard is not None for one in self.clauses)

    def text(self) -> str:
        return " ".join(one.text for one in self.clauses)

    def heard(self) -> str:
        return " ".join(one.heard for one in self.clauses if one.heard)

    def cut(self, heard: tuple[tuple[int, int, int], ...]) -> str:
        """Playback was cleared: settle what was heard of each clause; return what was not heard."""
        positions = {clause_no: (played, sent) for clause_no, played, sent in heard}
        unheard = []
        for one in self.clauses:
            if one.heard is not None:
                continue
            played, sent = positions.get(one.clause_no, (0, 0))
            # A clause that is still being rendered is at least as long as what was sent of it.
            one.heard, rest = heard_part(one.text, played, max(one.samples or 0, sent))
            if rest:
                unheard.append(rest)
        self.complete = True
        return " ".join(unheard)
