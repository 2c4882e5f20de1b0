"""A language model of our own: deterministic dialogue by script, behind ChatModel.

    messages → walk → state → step → words, tool call, done

Stateless: the state is computed anew from `ChatRequest.messages` each time, with the agent's words as they were heard.
So an interrupted question counts as not asked, a turn taken back never happened, and any process can go on with a call.
Guarantees: same messages, same answer; no randomness, no clock, no network; first word in well under a millisecond
after the script has been compiled once.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from typing import Any

from providers.base import ChatDone, ChatEvent, ChatRequest, Message, TextDelta, ToolCall, ToolSpec
from providers.errors import ProviderRejected
from providers.offline.dialogue_state import Reply, State
from providers.offline.dialogue_step import step
from providers.offline.script import Script, Tool, compile_script, fill
from providers.offline.words import plain

DIALOGUE = "dialogue"  # its name in an agent
MAX_SCRIPTS = 64
MAX_STRAY_WORDS = 4  # of an answer, heard before the caller went on
STRAY_SHARE = 0.5
HEARD_SHARE = 0.6  # of the words of a question, so that it counts as heard


class DialogueModel:
    """ChatModel "dialogue".

    Args:
        word_delay_ms: pause before each word, to look like a model that generates; 0 for the product.
    """

    __slots__ = ("_scripts", "_word_delay_ms", "name")

    def __init__(self, *, word_delay_ms: int = 0) -> None:
        self.name = DIALOGUE
        self._word_delay_ms = word_delay_ms
        # By identity: a script belongs to one immutable agent version. Kept with its mapping, so the id stays its own.
        self._scripts: OrderedDict[tuple[int, str], tuple[Mapping[str, Any], Script]] = OrderedDict()

    def attach_nowait(self) -> None:
        """Nothing is connected."""

    def detach_nowait(self) -> None:
        """Nothing is connected."""

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ChatEvent, None]:
        """The reply to the last message, word by word.

        Raises:
            ProviderRejected: the agent has no script, or a wrong one; the message names the key.
        """
        script = await self._compiled(request)
        reply = Reply()
        for replied in _walk(script, request.messages):
            reply = replied
            # A long history is walked turn by turn: each costs up to a millisecond when its words are new.
            await asyncio.sleep(0)
        words = reply.text.split()
        for at, word in enumerate(words):
            if self._word_delay_ms:
                await asyncio.sleep(self._word_delay_ms / 1000)
            yield TextDelta(word if at == 0 else f" {word}")
        tool = reply.tool if reply.tool is not None and _is_declared(reply.tool, request.tools) else None
        if tool is not None:
            turn = sum(message.role == "user" for message in request.messages)
            yield ToolCall(f"{tool.name}-{turn}", tool.name, json.dumps(reply.arguments, ensure_ascii=False))
        prompt = sum(len(message.content.split()) for message in request.messages)
        yield ChatDone("tool_calls" if tool is not None else "stop", prompt, len(words))

    async def aclose(self) -> None:
        self._scripts.clear()

    async def _compiled(self, request: ChatRequest) -> Script:
        if not request.script:
            raise ProviderRejected("the agent has no `script`", status=400, provider=self.name)
        key = (id(request.script), request.language)
        if key not in self._scripts:
            script = await asyncio.to_thread(compile_script, request.script, request.language)
            self._scripts[key] = (request.script, script)
            while len(self._scripts) > MAX_SCRIPTS:
                self._scripts.popitem(last=False)
        self._scripts.move_to_end(key)
        return self._scripts[key][1]


def answer(script: Script, messages: Sequence[Message]) -> Reply:
    """What the agent says after `messages`."""
    reply = Reply()
    for replied in _walk(script, messages):
        reply = replied
    return reply


def _walk(script: Script, messages: Sequence[Message]) -> Iterator[Reply]:
    """The reply to each message of the caller in turn; the last one counts."""
    state = State()
    reply = Reply()
    heard = said = ""
    before: State | None = None  # as it was when `said` was answered
    for at, message in enumerate(messages):
        if message.role == "assistant":
            heard = f"{heard} {message.content}"
            if not reply.text:
                _infer(script, state, message.content)
        elif message.role == "user":
            text = message.content
            if before is not None and _went_on(messages, at, reply, heard):
                # The answer came too early: what it was given to and what follows are one turn.
                state, text = before, f"{said} {text}"
            else:
                _hear(script, state, reply, heard)
            before, said = state.copy(), text
            reply, heard = step(script, state, text), ""
            yield reply
        elif message.role == "tool" and at == len(messages) - 1:
            yield _after_tool(script, reply, message.content)
    if not messages or messages[-1].role not in ("user", "tool"):
        yield Reply(question=script.phrases["help"][0])


def _after_tool(script: Script, reply: Reply, result: str) -> Reply:
    tool = reply.tool
    if tool is None:
        return Reply(question=script.phrases["help"][0])
    failed = result.lower().startswith("error")
    said = (tool.failed if failed else tool.answer) or script.phrases["anything_else"][0]
    return Reply(parts=[fill(said, {**script.facts, **reply.arguments, "result": result})])


def _went_on(messages: Sequence[Message], at: int, reply: Reply, heard: str) -> bool:
    """Whether the caller spoke on into the first words of the answer: they had not finished."""
    if messages[at - 1].role == "tool" or reply.tool is not None:
        return False
    told, wanted = heard.split(), reply.text.split()
    return len(told) <= MAX_STRAY_WORDS and len(told) < STRAY_SHARE * len(wanted) and told == wanted[: len(told)]


def _hear(script: Script, state: State, reply: Reply, heard: str) -> None:
    """Compare what was to be said with what the caller heard of it."""
    if not reply.question:
        return
    wanted = plain(reply.question, script.lexicon).split()
    told = plain(heard, script.lexicon)
    words = set(told.split())
    share = sum(word in words for word in wanted) / max(1, len(wanted))
    # Its last words decide too: a question that was cut before its end asked nothing.
    state.is_heard = share >= HEARD_SHARE and " ".join(wanted[-2:]) in told


def _infer(script: Script, state: State, said: str) -> None:
    """The history begins in the middle: find the question that the agent asked last, if it was one of a form."""
    told = plain(said, script.lexicon)
    for intent in script.intents.values():
        for name in intent.slots:
            slot = script.slots[name]
            if any(plain(ask, script.lexicon) in told for ask in (*slot.ask, *slot.reask)):
                state.form, state.slot, state.pending = intent.name, name, "slot"
                return


def _is_declared(tool: Tool, tools: Sequence[ToolSpec]) -> bool:
    return any(spec.name == tool.name for spec in tools)
