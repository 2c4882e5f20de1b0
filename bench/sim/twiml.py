"""TwiML as Twilio executes it: the verbs of a response, in order, with what the stream needs.

Names are case sensitive. What Twilio would refuse is an error here with Twilio's own debugger code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit
from xml.etree import ElementTree

MAX_PARAMETER_CHARS = 500
KNOWN_VERBS = frozenset(
    "Connect Dial Enqueue Gather Hangup Leave Pause Play Record Redirect Refer Reject Say Sms Start Stop".split()
)


class TwimlError(Exception):
    """The document or an address in it is not acceptable; `code` is the debugger's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


@dataclass(frozen=True, slots=True)
class Stream:
    """`<Connect><Stream>`. `action` is the address that is asked when the server closes the stream."""

    url: str
    parameters: dict[str, str] = field(default_factory=dict)
    name: str = ""
    status_callback: str = ""
    action: str = ""


@dataclass(frozen=True, slots=True)
class Verb:
    """Any other verb: its name, attributes and text; `<Dial>` keeps the numbers in `text`."""

    name: str
    attributes: dict[str, str] = field(default_factory=dict)
    text: str = ""


def parse_twiml(body: bytes, content_type: str) -> list[Stream | Verb]:
    """The verbs of a response in order. Raises TwimlError (12100 document, 12200 schema, 12300 content type)."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in ("text/xml", "application/xml", "text/html"):
        raise TwimlError(12300, f"content type {kind!r} is not TwiML")
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError as error:
        raise TwimlError(12100, f"document parse failure: {error}") from None
    if root.tag != "Response":
        raise TwimlError(12100, f"root element is <{root.tag}>, expected <Response>")
    return [_verb(element) for element in root]


def _verb(element: ElementTree.Element) -> Stream | Verb:
    if element.tag not in KNOWN_VERBS:
        raise TwimlError(12200, f"unknown verb <{element.tag}>")
    if element.tag == "Connect":
        nouns = list(element)
        if len(nouns) != 1 or nouns[0].tag != "Stream":
            raise TwimlError(12200, "<Connect> is simulated with exactly one <Stream>")
        return _stream(nouns[0], element.get("action", ""))
    text = " ".join("".join(element.itertext()).split())
    return Verb(element.tag, dict(element.attrib), text)


def _stream(element: ElementTree.Element, action: str) -> Stream:
    if element.get("track", "inbound_track") != "inbound_track":
        raise TwimlError(31941, "a bidirectional stream accepts only inbound_track")
    parameters: dict[str, str] = {}
    for child in element:
        name, value = child.get("name"), child.get("value")
        if child.tag != "Parameter" or name is None or value is None:
            raise TwimlError(12200, f"<Stream> holds <Parameter name value>, got <{child.tag}>")
        if len(name) + len(value) >= MAX_PARAMETER_CHARS:
            raise TwimlError(12200, f"parameter {name!r} is longer than {MAX_PARAMETER_CHARS} characters")
        parameters[name] = value
    url = element.get("url", "")
    check_stream_url(url)
    return Stream(url, parameters, element.get("name", ""), element.get("statusCallback", ""), action)


def check_stream_url(url: str) -> None:
    """Raises TwimlError: 31922 scheme, 31923 malformed, 31920 with a query string."""
    parts = urlsplit(url)
    if not parts.scheme or not parts.hostname:
        raise TwimlError(31923, f"stream URL {url!r} is malformed")
    if parts.scheme != "wss":
        raise TwimlError(31922, f"stream URL scheme {parts.scheme!r}, expected wss")
    if "?" in url:
        raise TwimlError(31920, "stream URL with a query string")
