"""What has been said, as the model and the record see it: the agent's words only as far as they were heard."""

from __future__ import annotations

from dataclasses import replace

from providers.base import Message, ToolCall

# A call of an hour has a few hundred turns; older ones are dropped from the model's view, never from the record.
MAX_MESSAGES = 120
MAX_ID_CHARS = 40
"""Of a call: services refuse a request with a longer one, though they may have made it themselves."""


def heard_part(text: str, heard_samples: int, total_samples: int) -> tuple[str, str]:
    """Split `text` at the word that the caller was hearing: (heard, unheard).

    Speech is taken to be even over the characters of a clause; a word counts as heard when more than half of
    it was. `total_samples` is the length of the whole clause.
    """
    if total_samples <= 0 or heard_samples <= 0:
        return "", text
    if heard_samples >= total_samples:
        return text, ""
    cut = len(text) * heard_samples / total_samples
    words = text.split(" ")
    position = 0
    for index, word in enumerate(words):
        if position + len(word) / 2 > cut:
            return " ".join(words[:index]), " ".join(words[index:])
        position += len(word) + 1
    return text, ""


class History:
    """The model context of one call. The system prompt is not part of it."""

    __slots__ = ("_messages",)

    def __init__(self) -> None:
        self._messages: list[Message] = []

    def messages(self) -> tuple[Message, ...]:
        return tuple(self._messages)

    def caller_said(self, text: str) -> None:
        self._append(Message("user", text))

    def take_back_caller(self) -> str:
        """Remove and return the caller's last words: they go on speaking."""
        while self._messages and self._messages[-1].role != "user":
            # What was prepared in answer to unfinished words is void.
            self._messages.pop()
        return self._messages.pop().content if self._messages else ""

    def agent_said(self, text: str, *, before_calls: int = 0) -> None:
        """`text` was heard by the caller; empty text leaves no trace. It came with the last `before_calls` calls."""
        if not text:
            return
        at = len(self._messages)
        for _ in range(before_calls):
            if at and self._messages[at - 1].role == "tool":
                at -= 2
        self._messages.insert(at, Message("assistant", text))
        self._trim()

    def tool_called(self, call: ToolCall, result: str) -> str:
        """Returns the id of the call: the model's, unless it is too long, or stands here already."""
        known = {one.tool_call_id for one in self._messages if one.role == "tool"}
        call_id = call.id
        if not 0 < len(call_id) <= MAX_ID_CHARS or call_id in known:
            call_id = next(made for number in range(1, MAX_MESSAGES + 2) if (made := f"call_{number}") not in known)
        self._messages.append(Message("assistant", "", tool_calls=(replace(call, id=call_id),)))
        self._append(Message("tool", result, tool_call_id=call_id))
        return call_id

    def tool_answered(self, call_id: str, result: str) -> None:
        """`result` stands for what was said of the call before. One that is trimmed away is not missed."""
        for at in range(len(self._messages) - 1, -1, -1):
            if self._messages[at].role == "tool" and self._messages[at].tool_call_id == call_id:
                self._messages[at] = Message("tool", result, tool_call_id=call_id)
                return

    def has_acted(self) -> bool:
        """Something was done in answer to the caller's last words: they cannot be taken back."""
        for message in reversed(self._messages):
            if message.role == "user":
                return False
            if message.role == "tool":
                return True
        return False

    def _append(self, message: Message) -> None:
        self._messages.append(message)
        self._trim()

    def _trim(self) -> None:
        while len(self._messages) > MAX_MESSAGES:
            self._messages.pop(0)
            # A tool's result without its call is refused by every provider.
            while self._messages and self._messages[0].role in ("tool", "assistant"):
                self._messages.pop(0)
