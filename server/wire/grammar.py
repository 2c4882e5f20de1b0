"""The form that a carrier's media messages nearly always have, for the native fast path.

Source: Twilio, "Media Streams - WebSocket Messages"; Telnyx, "Media streaming over WebSockets". A carrier that
changes its spelling costs time, not calls: the complete parsers of this package take whatever does not match.
"""

from __future__ import annotations

import orjson

from audio_native.media import MediaGrammar


def twilio_grammar(stream_id: str) -> MediaGrammar:
    """Media of the inbound track of the Twilio stream `stream_id` (MZ…)."""
    return MediaGrammar(
        b'{"event":"media","sequenceNumber":"',
        b'","media":{"track":"inbound","chunk":"',
        b'","timestamp":"',
        b'","payload":"',
        b'"},"streamSid":' + orjson.dumps(stream_id) + b"}",
    )


def telnyx_grammar(stream_id: str) -> MediaGrammar:
    """Media of the inbound track of the Telnyx stream `stream_id` (a UUID)."""
    return MediaGrammar(
        b'{"event":"media","sequence_number":"',
        b'","media":{"track":"inbound","chunk":"',
        b'","timestamp":"',
        b'","payload":"',
        b'"},"stream_id":' + orjson.dumps(stream_id) + b"}",
    )


def grammar_for(carrier: str, stream_id: str) -> MediaGrammar | None:
    """The form for a stream of `carrier`; None where audio does not come in texts, or the id is not ASCII."""
    if not stream_id.isascii():
        return None
    if carrier == "twilio":
        return twilio_grammar(stream_id)
    return telnyx_grammar(stream_id) if carrier == "telnyx" else None
