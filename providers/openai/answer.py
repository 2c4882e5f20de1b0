"""The chunks of one streamed chat completion to ChatEvents. Pure: no socket, no clock, no SDK.

    chunk (JSON of OpenAI, Groq, Azure or something compatible) → feed → TextDelta…   finish → ToolCall…, ChatDone

Services differ more than their books: a first chunk without choices, chunks without delta, whole tool calls at once,
no role, `stop` beside calls, two finishes, usage in three places. What was sent decides, not what was announced.
Guarantees: reasoning never becomes text; text and arguments are bounded; tool calls come out whole and in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from providers.base import ChatDone, ChatEvent, TextDelta, ToolCall
from providers.errors import ProviderProtocolError
from providers.openai.failure import told

MAX_ANSWER_CHARS = 64_000  # 4096 tokens, the most an agent may ask for, have less than 30,000
MAX_ARGUMENT_CHARS = 64_000  # of all calls together
MAX_CALLS = 32
_REASONS = {"stop", "length", "tool_calls", "content_filter"}


class _Call:
    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []


class Answer:
    """One stream's state. `is_finished`: the service said why it ended; only usage may follow."""

    __slots__ = ("_argument_chars", "_by_index", "_calls", "_chars", "_provider", "_reason", "_think", "_usage",
                 "groq_id", "is_useful")  # fmt: skip

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._think = ThinkFilter()
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._chars = self._argument_chars = 0
        self._reason = ""
        self._usage: Mapping[str, Any] = {}
        self.groq_id = ""
        self.is_useful = False

    @property
    def is_finished(self) -> bool:
        return bool(self._reason)

    def feed(self, data: bytes) -> Iterator[ChatEvent]:
        """The events of one chunk.

        Raises:
            ProviderError: an error object; ProviderProtocolError: no JSON, another shape, or too much of it.
        """
        chunk = self._parse(data)
        if chunk.get("error"):
            error = chunk["error"]
            raise told(error if isinstance(error, Mapping) else {"message": str(error)}, provider=self._provider)
        self._note(chunk)
        for choice in self._list(chunk.get("choices")):
            if not isinstance(choice, Mapping):
                raise self._bad("a choice that is no object")
            if choice.get("index"):
                continue  # we never ask for a second answer
            delta = choice.get("delta")
            if isinstance(delta, Mapping):
                yield from self._text(delta)
                for fragment in self._list(delta.get("tool_calls")):
                    self._fragment(fragment)
            reason = choice.get("finish_reason")
            if isinstance(reason, str) and reason:
                self._reason = reason

    def finish(self) -> Iterator[ChatEvent]:
        """The rest, once nothing more comes. Raises ProviderProtocolError when the answer never ended."""
        if not self._reason:
            raise self._bad("the stream ended before the answer did")
        rest = self._think.end()
        if rest:
            yield TextDelta(rest)
        for number, call in enumerate(self._calls):
            if not call.name:
                raise self._bad("a tool call without a name")
            yield ToolCall(call.id or f"call_{number}", call.name, "".join(call.arguments) or "{}")
        reason = self._reason if self._reason in _REASONS else "stop"
        if self._calls and reason == "stop":
            reason = "tool_calls"
        elif not self._calls and reason == "tool_calls":
            reason = "stop"
        usage = self._usage
        details = usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, Mapping) else 0
        yield ChatDone(
            reason, _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")), _count(cached),
            self._provider,
        )  # fmt: skip

    def _parse(self, data: bytes) -> dict[str, Any]:
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise self._bad("an event that is no JSON") from None
        if not isinstance(chunk, dict):
            raise self._bad("an event that is no object")
        return chunk

    def _note(self, chunk: Mapping[str, Any]) -> None:
        groq = chunk.get("x_groq")
        if isinstance(groq, Mapping):
            if isinstance(groq.get("id"), str):
                self.groq_id = groq["id"]
            if isinstance(groq.get("usage"), Mapping):
                self._usage = groq["usage"]
            if groq.get("error"):
                raise told({"message": str(groq["error"])}, provider=self._provider)
        if isinstance(chunk.get("usage"), Mapping):
            self._usage = chunk["usage"]

    def _text(self, delta: Mapping[str, Any]) -> Iterator[ChatEvent]:
        # A refusal is what the model says in place of an answer: words for the caller.
        for text in (delta.get("content"), delta.get("refusal")):
            if not text:
                continue
            if not isinstance(text, str):
                raise self._bad("content that is no text")
            self._chars += len(text)
            if self._chars > MAX_ANSWER_CHARS:
                raise self._bad(f"an answer of more than {MAX_ANSWER_CHARS} characters")
            shown = self._think.feed(text)
            if shown:
                self.is_useful = True
                yield TextDelta(shown)

    def _fragment(self, fragment: Any) -> None:
        if not isinstance(fragment, Mapping):
            raise self._bad("a tool call that is no object")
        call = self._call(fragment)
        function = fragment.get("function")
        if not isinstance(function, Mapping):
            return
        name, arguments = function.get("name"), function.get("arguments")
        if isinstance(name, str) and not call.name:
            call.name = name
        if arguments and not isinstance(arguments, str):
            arguments = orjson.dumps(arguments).decode()  # some servers hand over the object itself
        if arguments:
            self._argument_chars += len(arguments)
            if self._argument_chars > MAX_ARGUMENT_CHARS:
                raise self._bad(f"tool arguments of more than {MAX_ARGUMENT_CHARS} characters")
            call.arguments.append(arguments)

    def _call(self, fragment: Mapping[str, Any]) -> _Call:
        """The call that a fragment belongs to: by index, unless a new id says that another one began."""
        index, call_id = fragment.get("index"), fragment.get("id")
        call_id = call_id if isinstance(call_id, str) else ""
        last = self._calls[-1] if self._calls else None
        call = self._by_index.get(index) if isinstance(index, int) else last
        if call is None or (call_id and call.id and call_id != call.id):
            if len(self._calls) >= MAX_CALLS:
                raise self._bad(f"more than {MAX_CALLS} tool calls")
            call = _Call()
            self._calls.append(call)
            if isinstance(index, int):
                self._by_index[index] = call
        call.id = call.id or call_id
        return call

    def _list(self, value: object) -> list[Any]:
        if value is None or isinstance(value, list):
            return value or []
        raise self._bad("a list that is none")

    def _bad(self, what: str) -> ProviderProtocolError:
        return ProviderProtocolError(what, provider=self._provider)


class ThinkFilter:
    """Drops `<think>…</think>` at the start of an answer: some servers leave a model's reasoning in its text."""

    __slots__ = ("_held", "_mode")

    def __init__(self) -> None:
        self._held = ""
        self._mode = "start"

    def feed(self, text: str) -> str:
        if self._mode == "text":
            return text
        self._held += text
        if self._mode == "start":
            begun = self._held.lstrip()
            if begun.startswith("<think>"):
                self._mode, self._held = "think", begun[len("<think>") :]
            elif "<think>".startswith(begun):
                return ""
        if self._mode == "think":
            _, closed, rest = self._held.partition("</think>")
            if not closed:
                self._held = self._held[-len("</think>") :]
                return ""
            self._mode, self._held = "gap", rest
        if self._mode == "gap":
            self._held = self._held.lstrip()
            if not self._held:
                return ""
        self._mode = "text"
        return self.end()

    def end(self) -> str:
        """What was held back and is no reasoning."""
        held, self._held = self._held, ""
        return held if self._mode != "think" else ""


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
