"""An agent's YAML file as a definition: its slug, its numbers, its settings.

# agents/reception.yaml            the slug is the name of the file
numbers: ["+15550100001", "*"]     whom it answers for; * is every number that nobody else has
name: Reception                    all else is server/agent/settings.py
…
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

import yaml

from server.agent.settings import AgentSettings, SettingsError

MAX_YAML_CHARS = 256 * 1024
ANY_NUMBER = "*"
_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_NUMBER = re.compile(r"\+[1-9][0-9]{6,14}")


class AgentFileError(ValueError):
    """A file is not an agent. Names the file, the setting and the accepted form."""

    def __init__(self, slug: str, message: str) -> None:
        super().__init__(f"{slug}.yaml: {message}")
        self.slug = slug


@dataclass(frozen=True, slots=True)
class AgentDefinition:
    """`content_hash` is of the settings with all defaults: equal settings, equal hash, whatever the YAML looks like."""

    slug: str
    numbers: tuple[str, ...]
    settings: AgentSettings
    content_hash: str


def parse_agent(slug: str, text: str) -> AgentDefinition:
    """Read one file. `slug` is its name without .yaml. Raises AgentFileError."""
    if not _SLUG.fullmatch(slug):
        raise AgentFileError(slug, "expected a file name of lower-case letters, digits, - and _ (at most 63)")
    if len(text) > MAX_YAML_CHARS:
        raise AgentFileError(slug, f"expected at most {MAX_YAML_CHARS} characters")
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise AgentFileError(slug, f"not YAML: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise AgentFileError(slug, "nested deeper than settings are") from None
    if not isinstance(raw, dict) or not all(isinstance(key, str) for key in raw):
        raise AgentFileError(slug, "expected a mapping of settings")
    numbers = raw.pop("numbers", [])
    if not isinstance(numbers, list):
        raise AgentFileError(slug, "numbers: expected a list")
    for number in numbers:
        if number != ANY_NUMBER and not (isinstance(number, str) and _NUMBER.fullmatch(number)):
            raise AgentFileError(slug, f'numbers: expected E.164 in quotes ("+15550100001") or "*", got {number!r}')
    try:
        settings = AgentSettings.parse(raw)
        digest = content_hash(settings)
    except (SettingsError, TypeError, ValueError) as error:
        # TypeError: a YAML date or mixed keys inside `script`, which JSON has no form for.
        raise AgentFileError(slug, str(error)) from error
    return AgentDefinition(slug, tuple(dict.fromkeys(numbers)), settings, digest)


def check_numbers(definitions: Iterable[AgentDefinition]) -> None:
    """Each number reaches one agent. Raises AgentFileError for the second that claims it."""
    owner: dict[str, str] = {}
    for one in definitions:
        for number in one.numbers:
            if owner.setdefault(number, one.slug) != one.slug:
                raise AgentFileError(one.slug, f"numbers: {number} is already answered by {owner[number]}.yaml")


def settings_json(settings: AgentSettings) -> str:
    """The settings in one canonical form; `AgentSettings.parse` of it gives an equal value.

    Raises:
        TypeError, ValueError: a value in `script` or `channels` has no form in JSON.
    """
    return json.dumps(settings.as_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_hash(settings: AgentSettings) -> str:
    return hashlib.sha256(settings_json(settings).encode()).hexdigest()
