"""Settings of an agent: every field has a range that is enforced, and overrides are resolved in one place."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

import pytest

from server.agent.settings import CHANNELS, TRANSFERRING, AgentSettings, SettingsError


def leaves(cls: type[Any] = AgentSettings, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """(path, field, type) of every setting that is a plain value."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from leaves(typing.cast(type[Any], hint), (*path, field.name))
        elif field.name not in ("tools", "script", "channels"):
            yield (*path, field.name), field, hint


LEAVES = list(leaves())


def nested(path: tuple[str, ...], value: object) -> dict[str, Any]:
    for name in reversed(path):
        value = {name: value}
    return typing.cast(dict[str, Any], value)


def get(settings: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        settings = getattr(settings, name)
    return settings


OF_A_FORM = {"fallback_number": "+15550142", "language": "de-AT", "lexicon_url": "https://cdn.example.com/words.xml"}


def other(field: Any, hint: Any) -> Any:
    """A valid value that is not the default."""
    if typing.get_origin(hint) is typing.Literal:
        return next(one for one in typing.get_args(hint) if one != field.default)
    if hint is bool:
        return not field.default
    if hint is str:
        return OF_A_FORM[field.name] if "pattern" in field.metadata else "other"
    if typing.get_origin(hint) is tuple:
        return ["one", "two"]
    return field.metadata["low"] if field.default != field.metadata["low"] else field.metadata["high"]


def wrong(field: Any, hint: Any) -> list[Any]:
    if typing.get_origin(hint) is typing.Literal:
        return ["no such word", 1, None]
    if hint is bool:
        return ["yes", 1, None]
    if hint is str:
        return [1, None, ["x"], "x" * (field.metadata["max_chars"] + 1)]
    if typing.get_origin(hint) is tuple:
        return ["x", [1], ["x"] * (field.metadata["max_items"] + 1), ["x" * (field.metadata["max_chars"] + 1)]]
    return [field.metadata["low"] - 1, field.metadata["high"] + 1, "1", True, None]


@pytest.mark.parametrize(("path", "field", "hint"), LEAVES, ids=[".".join(path) for path, _, _ in LEAVES])
def test_each_setting(path: tuple[str, ...], field: Any, hint: Any) -> None:
    assert field.metadata["doc"]
    value = other(field, hint)
    raw = nested(path, value)
    if path == ("turn", "min_delay_ms") or path == ("turn", "max_delay_ms"):
        raw["turn"] |= {"min_delay_ms": 100, "max_delay_ms": 8000} | raw["turn"]
    settings = AgentSettings.parse(raw)
    expected = tuple(value) if isinstance(value, list) else value
    assert get(settings, path) == expected
    assert AgentSettings.parse(settings.as_dict()) == settings
    for bad in wrong(field, hint):
        with pytest.raises(SettingsError) as refused:
            AgentSettings.parse(nested(path, bad))
        assert refused.value.path == ".".join(path)


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize(("path", "field", "hint"), LEAVES, ids=[".".join(path) for path, _, _ in LEAVES])
def test_each_override(channel: Any, path: tuple[str, ...], field: Any, hint: Any) -> None:
    if path == ("turn", "max_delay_ms"):
        return
    value = other(field, hint)
    if path == ("limits", "fallback_number") and channel not in TRANSFERRING:
        with pytest.raises(SettingsError, match=rf"channels\.{channel}\.limits\.fallback_number"):
            AgentSettings.parse({"channels": {channel: nested(path, value)}})
        return
    base = AgentSettings.parse({"channels": {channel: nested(path, value)}})
    assert get(base, path) == field.default
    resolved = base.for_channel(channel)
    assert get(resolved, path) == (tuple(value) if isinstance(value, list) else value)
    assert resolved.channels == {}
    for untouched in CHANNELS:
        if untouched != channel:
            assert base.for_channel(untouched) == dataclasses.replace(base, channels={})


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ({"turn": {"min_delay_ms": 900, "max_delay_ms": 600}}, "turn.max_delay_ms"),
        ({"channels": {"fax": {}}}, "channels.fax"),
        ({"channels": {"twilio": {"channels": {}}}}, "channels.twilio.channels"),
        ({"channels": {"twilio": {"turn": {"nope": 1}}}}, "channels.twilio.turn.nope"),
        ({"channels": {"twilio": {"turn": {"vad_mode": 9}}}}, "channels.twilio.turn.vad_mode"),
        ({"channels": {"twilio": 3}}, "channels.twilio"),
        ({"channels": {"twilio": {"turn": {"min_delay_ms": 3000}}}}, "channels.twilio.turn.max_delay_ms"),
        ({"turn": 3}, "turn"),
        ({"script": "x"}, "script"),
        ({"colour": 1}, "colour"),
    ],
)
def test_refused_with_its_path(raw: dict[str, Any], path: str) -> None:
    with pytest.raises(SettingsError) as refused:
        AgentSettings.parse(raw)
    assert refused.value.path == path


@pytest.mark.parametrize(
    "tag",
    [
        "en",
        "es-419",
        "zh-Hant-TW",
        "de-DE-1996",
        "sl-rozaj-biske",
        "zh-cmn-Hans-CN",
        "EN-us",
        "en-US-u-hc-h12",
        "fil-PH",
    ],
)
def test_languages(tag: str) -> None:
    settings = AgentSettings.parse({"language": tag, "stt": {"language": tag}})
    assert (settings.language, settings.stt.language) == (tag, tag)


@pytest.mark.parametrize(
    "tag", ["english", "en_US", "en-", "-US", "e", "en US", "en-US,de-DE", "en-USA-", "?", "12-US", "en-US-x"]
)
def test_what_is_no_language_is_refused_in_one_line(tag: str) -> None:
    for raw, path in (({"language": tag}, "language"), ({"stt": {"language": tag}}, "stt.language")):
        with pytest.raises(SettingsError) as refused:
            AgentSettings.parse(raw)
        assert str(refused.value) == f"{path}: expected a BCP 47 tag like en-US; got {tag!r}"
    with pytest.raises(SettingsError, match=r"^language: "):
        AgentSettings.parse({"language": ""})
    with pytest.raises(SettingsError, match=r"^channels\.browser\.stt\.language: "):
        AgentSettings.parse({"channels": {"browser": {"stt": {"language": tag}}}})


@pytest.mark.parametrize(
    "url", ["words.xml", "ftp://a.example.com/w.xml", "https://", "https:///w.xml", "file:///w.xml", "//a/w"]
)
def test_a_lexicon_that_nobody_can_fetch_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        AgentSettings.parse({"tts": {"lexicon_url": url}})
    assert str(refused.value) == f"tts.lexicon_url: expected an http or https URL; got {url!r}"


def test_another_provider_for_a_channel_does_not_get_the_names_of_the_one_before() -> None:
    raw = {
        "stt": {"provider": "azure", "model": "m"},
        "llm": {"provider": "groq", "model": "m"},
        "tts": {"provider": "azure", "voice": "v", "style": "s", "rate_percent": 10},
        "channels": {
            "browser": {group: {"provider": "other"} for group in ("stt", "llm", "tts")},
            "telnyx": {"tts": {"provider": "other", "voice": "w"}, "llm": {"provider": "groq"}},
        },
    }
    settings = AgentSettings.parse(raw)
    browser, telnyx, twilio = (settings.for_channel(one) for one in ("browser", "telnyx", "twilio"))
    assert (browser.stt.model, browser.llm.model, browser.tts.voice, browser.tts.style) == ("", "", "", "")
    assert browser.tts.rate_percent == 10
    assert (telnyx.stt.model, telnyx.llm.model, telnyx.tts.voice, telnyx.tts.style) == ("m", "m", "w", "")
    assert (twilio.stt.model, twilio.llm.model, twilio.tts.voice, twilio.tts.style) == ("m", "m", "v", "s")


def test_an_override_replaces_one_value_and_leaves_its_neighbours() -> None:
    raw = {"turn": {"vad_mode": 3, "onset_ms": 80}, "channels": {"browser": {"turn": {"onset_ms": 40}}}}
    resolved = AgentSettings.parse(raw).for_channel("browser")
    assert (resolved.turn.vad_mode, resolved.turn.onset_ms) == (3, 40)


def test_the_annotations_are_compiled_once_and_not_with_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = AgentSettings.parse({"channels": {"twilio": {"turn": {"min_delay_ms": 400}}}})
    merged = settings.for_channel("twilio")
    monkeypatch.setattr(typing, "get_type_hints", lambda *_: pytest.fail("compiled again"))
    assert settings.for_channel("twilio") == merged
