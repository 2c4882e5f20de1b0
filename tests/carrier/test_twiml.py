"""Our TwiML beside what Twilio's own classes write, compared as XML."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twilio.twiml.voice_response import Connect, Hangup, Say, Stream, VoiceResponse

from server.carrier import twiml

STREAM_URL = "wss://voice.example.com/media/twilio/s-1"
ACTION_URL = "https://voice.example.com/twilio/after-stream"
STATUS_URL = "https://voice.example.com/twilio/stream-status"


def canonical(document: bytes | str) -> str:
    return ElementTree.canonicalize(document.decode() if isinstance(document, bytes) else document, strip_text=False)


def theirs(parameters: dict[str, str], name: str) -> str:
    response = VoiceResponse()
    connect = Connect(action=ACTION_URL, method="POST")
    stream = Stream(url=STREAM_URL, name=name or None, status_callback=STATUS_URL, status_callback_method="POST")
    for key, value in parameters.items():
        stream.parameter(name=key, value=value)
    connect.append(stream)
    response.append(connect)
    return str(response)


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({}, ""),
        ({"secret": "b64url-opaque_"}, "leg-7f3a"),
        ({"secret": "x", "tenant": "acme & söhne <\"'>", "emoji": "😀", "lines": "a\nb\tc"}, 'n"<>&'),
    ],
)
def test_connect_stream(parameters: dict[str, str], name: str) -> None:
    ours = twiml.connect_stream(STREAM_URL, parameters, ACTION_URL, STATUS_URL, name=name)
    assert canonical(ours) == canonical(theirs(parameters, name))
    assert ours.startswith(b'<?xml version="1.0" encoding="UTF-8"?><Response>')
    assert ours == twiml.connect_stream(STREAM_URL, parameters, ACTION_URL, STATUS_URL, name=name)


xml_text = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff") | st.sampled_from("\t\n&<>\"'"),
    max_size=40,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(parameters=st.dictionaries(xml_text, xml_text, max_size=4), text=xml_text)
def test_any_text_survives(parameters: dict[str, str], text: str) -> None:
    ours = twiml.connect_stream(STREAM_URL, parameters, ACTION_URL, STATUS_URL)
    found = ElementTree.fromstring(ours).iter("Parameter")
    assert {one.attrib["name"]: one.attrib["value"] for one in found} == parameters
    said = ElementTree.fromstring(twiml.say_and_hang_up(text, "es-ES")).find("Say")
    assert said is not None
    assert (said.text or "") == text


@pytest.mark.parametrize(
    "url",
    ["https://h.example/x", "wss://", "/media", "wss://h.example/x?a=1", "wss://h.example/x?", "wss://h.example/x#f"],
)
def test_stream_urls_that_twilio_refuses(url: str) -> None:
    with pytest.raises(ValueError, match="stream URL"):
        twiml.connect_stream(url, {}, ACTION_URL, STATUS_URL)


def test_parameters_are_bounded() -> None:
    assert twiml.connect_stream(STREAM_URL, {"n": "x" * 498}, ACTION_URL, STATUS_URL)
    with pytest.raises(ValueError, match="'secret'") as caught:
        twiml.connect_stream(STREAM_URL, {"secret": "x" * 494}, ACTION_URL, STATUS_URL)
    assert "xx" not in str(caught.value), "a secret is not told"
    with pytest.raises(ValueError, match="XML"):
        twiml.connect_stream(STREAM_URL, {"n": "\x00"}, ACTION_URL, STATUS_URL)
    with pytest.raises(ValueError, match="at most 99"):
        twiml.connect_stream(STREAM_URL, {f"p{i}": "" for i in range(100)}, ACTION_URL, STATUS_URL)


@pytest.mark.parametrize("reason", ["busy", "rejected"])
def test_reject(reason: twiml.RejectReason) -> None:
    response = VoiceResponse()
    response.reject(reason=reason)
    assert canonical(twiml.reject(reason)) == canonical(str(response))


def test_hang_up_and_say() -> None:
    response = VoiceResponse()
    response.append(Hangup())
    assert canonical(twiml.hang_up()) == canonical(str(response))
    text = 'Lo siento <mucho> & "adiós".'
    response = VoiceResponse()
    response.append(Say(text, language="es-ES"))
    response.append(Hangup())
    assert canonical(twiml.say_and_hang_up(text, "es-ES")) == canonical(str(response))


def test_an_apology_never_fails() -> None:
    document = twiml.say_and_hang_up("a\x00b\ud800c\uffff", 'x"y\x01')
    said = ElementTree.fromstring(document).find("Say")
    assert said is not None
    assert (said.text, said.attrib["language"]) == ("abc", 'x"y')
