"""Tools in an agent's file: what is taken, what is refused and by which name."""

from __future__ import annotations

from typing import Any

import pytest

from server.agent.settings import AgentSettings, SettingsError
from server.agent.tool_settings import MAX_SCHEMA_CHARS, MAX_TOOLS

GOOD: dict[str, Any] = {
    "name": "find_price",
    "description": "What something costs",
    "url": "https://tools.example.com/price",
    "parameters": {"type": "object", "properties": {"item": {"type": "string"}}},
}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"properties": {"a": schema}}
    return schema


def refusal(raw: Any) -> tuple[str, str]:
    with pytest.raises(SettingsError) as refused:
        AgentSettings.parse({"tools": raw})
    return refused.value.path, str(refused.value)


def test_a_tool_is_taken_as_it_stands() -> None:
    every = {
        **GOOD, "method": "PUT", "secret": "crm", "secret_header": "X-Api-Key", "timeout_ms": 900, "retries": 2,
        "idempotent": True, "redact": ["card"], "filler": "One second.",
    }  # fmt: skip
    settings = AgentSettings.parse({"tools": [every]})
    assert {name: getattr(settings.tools[0], name) for name in every} == {**every, "redact": ("card",)}
    assert AgentSettings.parse(settings.as_dict()) == settings


@pytest.mark.parametrize(
    "key, value, says",
    [
        ("name", "", "expected a name"),
        ("name", "end_call", "none of end_call"),
        ("name", "two words", "letters, digits"),
        ("name", 3, "a text"),
        ("url", "", "URL"),
        ("url", "ftp://x/y", "URL"),
        ("url", "https://x:99999/y", "URL"),
        ("url", "https://[::1/y", "URL"),
        ("url", "https://ex\u00e4mple.com/", "ASCII"),
        ("url", "https://x/y#part", "fragment"),
        ("method", "HEAD", "expected one of POST"),
        ("secret_header", "a b", "header"),
        ("timeout_ms", 199, "200 to 20000"),
        ("timeout_ms", 20001, "200 to 20000"),
        ("retries", 4, "0 to 3"),
        ("retries", 1, "POST is not repeated"),
        ("idempotent", "yes", "true or false"),
        ("redact", "card", "list of texts"),
        ("filler", "x" * 201, "200 characters"),
        ("parameters", [], "a mapping"),
        ("parameters", {"type": 3}, "JSON schema"),
        ("parameters", {"type": "array"}, "of type object"),
        ("parameters", {"properties": {"a": {"$ref": "https://evil/schema"}}}, "without $ref"),
        ("parameters", {"properties": {"a": {"$dynamicRef": "https://evil/schema"}}}, "$dynamicRef"),
        ("parameters", nested(700), "less deep"),
        ("parameters", {"description": "x" * MAX_SCHEMA_CHARS}, "at most 8000"),
        ("colour", "red", "unknown setting"),
    ],
)
def test_what_is_wrong_is_named(key: str, value: Any, says: str) -> None:
    path, message = refusal([{**GOOD, key: value}])
    assert path == f"tools[0].{key}" and says in message


def test_names_are_unique_and_there_are_not_too_many() -> None:
    assert refusal([GOOD, GOOD])[0] == "tools[1].name"
    assert refusal([{**GOOD, "name": f"t{n}"} for n in range(MAX_TOOLS + 1)])[0] == "tools"
    assert refusal("find_price")[0] == "tools"
    assert refusal(["find_price"])[0] == "tools[0]"


def test_a_channel_has_tools_of_its_own() -> None:
    settings = AgentSettings.parse({"tools": [GOOD], "channels": {"browser": {"tools": []}}})
    assert settings.for_channel("browser").tools == ()
    assert [one.name for one in settings.for_channel("twilio").tools] == ["find_price"]
    with pytest.raises(SettingsError, match=r"channels\.twilio\.tools\[0\]\.url"):
        AgentSettings.parse({"channels": {"twilio": {"tools": [{"name": "a"}]}}})
