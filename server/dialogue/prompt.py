"""The system prompt: rules of the medium first, then the operator's text."""

from __future__ import annotations

from server.agent.settings import AgentSettings

_RULES = (
    "You are speaking with a caller on the telephone. Your words are spoken aloud: no markdown, no lists, no emoji,"
    " no addresses of web pages unless asked. Keep each answer to one or two short sentences, and ask one thing at a"
    " time. If you did not understand, say so and ask again. Call end_call when the caller is done."
)


def system_prompt(settings: AgentSettings) -> str:
    parts = [_RULES, f"Speak only {settings.language} unless the operator's instructions say otherwise."]
    if settings.prompt:
        parts.append(settings.prompt)
    return "\n\n".join(parts)
