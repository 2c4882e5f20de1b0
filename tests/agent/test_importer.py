"""Agents' YAML: what is read, what is refused and how, and that equal settings have equal hashes."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.agent.importer import AgentFileError, check_numbers, content_hash, parse_agent, settings_json
from server.agent.settings import AgentSettings

ROOT = Path(__file__).parent.parent.parent


def test_numbers_and_settings_are_told_apart() -> None:
    one = parse_agent("one", 'numbers: ["+15550100001", "*", "*"]\nname: One\nturn: {min_delay_ms: 700}\n')
    assert (one.slug, one.numbers) == ("one", ("+15550100001", "*"))
    assert (one.settings.name, one.settings.turn.min_delay_ms) == ("One", 700)


def test_every_example_agent_is_one() -> None:
    examples = sorted((ROOT / "agents").glob("*.yaml"))
    assert examples
    definitions = [parse_agent(path.stem, path.read_text()) for path in examples]
    check_numbers(definitions)
    assert {one.settings.language[:2] for one in definitions} >= {"en", "es"}


@pytest.mark.parametrize(
    ("slug", "text", "message"),
    [
        ("Bad Name", "name: x", "expected a file name"),
        ("a", "name: [", "not YAML"),
        ("a", "- name", "expected a mapping"),
        ("a", "", "expected a mapping"),
        ("a", "1: x", "expected a mapping"),
        ("a", "numbers: '+15550100001'", "numbers: expected a list"),
        ("a", "numbers: [15550100001]", "numbers: expected E.164"),
        ("a", "numbers: ['555']", "numbers: expected E.164"),
        ("a", "colour: red", "colour: unknown setting"),
        ("a", "turn: {min_delay_ms: 1}", "turn.min_delay_ms: expected a whole number from 100"),
        ("a", "script: {day: 2024-01-01}", "not JSON serializable"),
        ("a", "script: {x: .nan}", "JSON"),
        ("a", "prompt: !!python/object/apply:os.system [ls]", "not YAML"),
        ("a", "x: " + "y" * 300_000, "at most 262144 characters"),
    ],
)
def test_what_is_refused(slug: str, text: str, message: str) -> None:
    with pytest.raises(AgentFileError) as refused:
        parse_agent(slug, text)
    assert message in str(refused.value) and str(refused.value).startswith(f"{slug}.yaml: ")


def test_the_hash_is_of_the_meaning() -> None:
    plain = parse_agent("a", "name: A\nprompt: p\n")
    assert plain.content_hash == parse_agent("b", "# other file\nprompt: 'p'\nname: A\nnumbers: ['*']\n").content_hash
    assert plain.content_hash == parse_agent("a", "name: A\nprompt: p\nturn: {min_delay_ms: 500}\n").content_hash
    assert plain.content_hash != parse_agent("a", "name: A\nprompt: q\n").content_hash


def test_the_stored_form_parses_to_equal_settings() -> None:
    import json

    for path in sorted((ROOT / "agents").glob("*.yaml")):
        settings = parse_agent(path.stem, path.read_text()).settings
        again = AgentSettings.parse(json.loads(settings_json(settings)))
        assert content_hash(again) == content_hash(settings)
        assert settings_json(again) == settings_json(settings)


def test_a_number_belongs_to_one_agent() -> None:
    one, two = (parse_agent(slug, "numbers: ['*']") for slug in ("one", "two"))
    with pytest.raises(AgentFileError, match=r"two\.yaml: numbers: \* is already answered by one\.yaml"):
        check_numbers([one, two])
