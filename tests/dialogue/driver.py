"""Drives a Conversation under a manual clock: keeps its timers, plays the carrier, the recogniser and the model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from server.agent.settings import AgentSettings
from server.dialogue import event as ev
from server.dialogue.conversation import Conversation

MS = 1_000_000
RATE_HZ = 8000

BASE: dict[str, Any] = {
    "opening": {"text": "Hello, how can I help?"},
    "turn": {"min_delay_ms": 500, "max_delay_ms": 1500},
    "limits": {
        "idle_timeout_ms": 8000,
        "idle_prompts": ["Are you still there?"],
        "idle_goodbye": "I will hang up now.",
        "goodbye": "Goodbye!",
        "apology": "Sorry, something went wrong.",
        "farewell": "We cannot go on. Goodbye.",
        "end_call_phrases": ["goodbye"],
        "max_duration_ms": 60000,
        "max_duration_notice": "Our time is up.",
    },
}


class Driver:
    def __init__(self, **overrides: Any) -> None:
        raw = {**BASE, **overrides}
        self.now_ns = 1_000 * MS
        self.talk = Conversation(AgentSettings.parse(raw), RATE_HZ)
        self.timers: dict[str, int] = {}
        self.actions: list[ev.Action] = []
        self.heard: tuple[tuple[int, int, int], ...] = ()

    def feed(self, *events: ev.Event) -> list[ev.Action]:
        done: list[ev.Action] = []
        queue = list(events)
        while queue:
            for action in self.step(queue.pop(0)):
                done.append(action)
                match action:
                    case ev.SetTimer(name, due_ns):
                        self.timers[name] = due_ns
                    case ev.CancelTimer(name):
                        self.timers.pop(name, None)
                    case ev.ClearPlayout():
                        queue.insert(0, ev.PlayoutCleared(self.heard))
                        self.heard = ()
        self.actions += done
        return done

    def step(self, event: ev.Event) -> list[ev.Action]:
        return self.talk.step(event, self.now_ns)

    def wait(self, ms: float) -> list[ev.Action]:
        """Let time pass, firing what is due in order."""
        end_ns = self.now_ns + round(ms * MS)
        done: list[ev.Action] = []
        while self.timers:
            name, due_ns = min(self.timers.items(), key=lambda item: item[1])
            if due_ns > end_ns:
                break
            self.now_ns = max(self.now_ns, due_ns)
            del self.timers[name]
            done += self.feed(ev.TimerFired(name))
        self.now_ns = end_ns
        return done

    def begin(self) -> None:
        """Answer the call and hear the opening to its end."""
        self.feed(ev.CallBegan())
        self.play_all()

    def play_all(self) -> list[ev.Action]:
        """Render and play every clause of what is being said."""
        done: list[ev.Action] = []
        while clauses := self.talk.unheard_clauses():
            done += self.render(clauses[0])
            self.now_ns += 1000 * MS
            done += self.feed(ev.PlayoutFinished(clauses[0], True))
        return done

    def render(self, clause_no: int, samples: int = RATE_HZ) -> list[ev.Action]:
        return self.feed(
            ev.SpeechRequested(clause_no),
            ev.SpeechFirstByte(clause_no),
            ev.FirstSent(clause_no),
            ev.SpeechRendered(clause_no, samples),
        )

    def speaks(self, text: str, ms: int = 1000) -> list[ev.Action]:
        """The caller says `text`; its final comes 100 ms after the hangover."""
        start = self.now_ns // MS
        done = self.feed(ev.SpeechStarted(start))
        self.wait(200)
        done += self.feed(ev.SpeechConfirmed())
        self.wait(ms - 200)
        end_ns = self.now_ns
        done += self.wait(200)
        done += self.feed(ev.SpeechStopped(start, end_ns // MS, end_ns))
        done += self.wait(100)
        done += self.final(text)
        return done

    def final(self, text: str) -> list[ev.Action]:
        return self.feed(ev.TranscriptFinal(self.utterance_no, text))

    def replies(self, *deltas: str, tools: Iterable[str] = ()) -> list[ev.Action]:
        number = self.reply_no
        done: list[ev.Action] = []
        for delta in deltas:
            done += self.feed(ev.ReplyText(number, delta))
        for tool in tools:
            done += self.feed(ev.ReplyTool(number, f"id-{tool}", tool, "{}"))
        return done + self.feed(ev.ReplyDone(number, "stop", 10, 5))

    @property
    def utterance_no(self) -> int:
        return max(a.utterance_no for a in self.actions if isinstance(a, ev.BeginUtterance))

    @property
    def reply_no(self) -> int:
        return max(a.reply_no for a in self.actions if isinstance(a, ev.RequestReply))

    def said(self) -> list[str]:
        return [a.text for a in self.actions if isinstance(a, ev.Speak)]

    def segments(self) -> list[tuple[str, str]]:
        return [(a.speaker, a.heard_text) for a in self.actions if isinstance(a, ev.RecordSegment)]

    def turns(self) -> list[ev.RecordTurn]:
        return [a for a in self.actions if isinstance(a, ev.RecordTurn)]

    def history(self) -> list[tuple[str, str]]:
        return [(m.role, m.content) for m in self.talk.history.messages()]


def kinds(actions: Iterable[ev.Action]) -> list[str]:
    return [type(one).__name__ for one in actions if not isinstance(one, ev.CancelTimer)]
