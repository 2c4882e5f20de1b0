"""Signatures: the vendors' vectors, agreement with Twilio's own library, and what must be refused."""

from __future__ import annotations

import base64
import hmac
import random
import string

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import ImmutableMultiDict
from twilio.request_validator import RequestValidator, get_signature_algorithm

from server.carrier.signature import TelnyxSignature, TwilioSignature
from server.errors import ConfigError

TOKEN = "0123456789abcdef0123456789abcdef"
PUBLIC_URL = "https://voice.example.com"
VOICE = [
    ("CallSid", "CA" + "a" * 32),
    ("AccountSid", "AC" + "b" * 32),
    ("From", "+4915112345678"),
    ("To", "+493012345678"),
    ("CallStatus", "ringing"),
    ("ApiVersion", "2010-04-01"),
    ("Direction", "inbound"),
]


def checker(url: str = PUBLIC_URL, *tokens: str) -> TwilioSignature:
    return TwilioSignature(url, tokens or (TOKEN,))


def test_twilio_vectors() -> None:
    params = [
        ("CallSid", "CA1234567890ABCDE"),
        ("Caller", "+14158675310"),
        ("Digits", "1234"),
        ("From", "+14158675310"),
        ("To", "+18005551212"),
    ]
    old = TwilioSignature("https://example.com", ["12345"])
    assert old.is_valid_form(b"/myapp.php", b"foo=1&bar=2", params, "L/OH5YylLD5NRKLltdqwSvS0BnU=")
    assert checker().is_valid_form(b"/twilio/voice", b"tenant=acme", VOICE, "6wvKT1gf7PZG6LADCUzdni0Kr5c=")
    assert checker().is_valid_form(b"/twilio/voice", b"tenant=acme&CallSid=CAx", (), "mROkfJ2VSza8CCwOvmpBYHhr4Lg=")
    assert checker().is_valid_upgrade(b"/twilio/media", "3Wv0T80qzAY3OCARW9y1gnUJZtE=")


def sign(url: str, params: object = None, token: str = TOKEN, algorithm: str | None = None) -> str:
    """By Twilio's library, never by the code under test."""
    return str(RequestValidator(token).compute_signature(url, params or {}, algorithm))


@pytest.mark.parametrize(
    "public_url",
    [
        "https://voice.example.com",
        "http://127.0.0.1:8080",
        "https://voice.example.com:8443/behind/proxy/",
        "http://h.example",
    ],
)
def test_both_port_forms(public_url: str) -> None:
    base = public_url.rstrip("/")
    scheme, host = base.split("://")
    name, _, path = host.partition("/")
    path = f"/{path}" if path else ""
    bare, _, port = name.partition(":")
    port = port or ("443" if scheme == "https" else "80")
    one = checker(public_url)
    for netloc in (bare, f"{bare}:{port}"):
        signed = sign(f"{scheme}://{netloc}{path}/twilio/voice?a=%2B1", dict(VOICE))
        assert one.is_valid_form(b"/twilio/voice", b"a=%2B1", VOICE, signed)
    for netloc in (f"{bare}:444", f"user:pass@{bare}", f"www.{bare}"):
        signed = sign(f"{scheme}://{netloc}{path}/twilio/voice?a=%2B1", dict(VOICE))
        assert not one.is_valid_form(b"/twilio/voice", b"a=%2B1", VOICE, signed)


def test_upgrade_forms() -> None:
    for url in (
        "wss://voice.example.com/media/twilio/s1",
        "wss://voice.example.com/media/twilio/s1/",
        "wss://voice.example.com:443/media/twilio/s1",
        "wss://voice.example.com:80/media/twilio/s1/",
    ):
        assert checker().is_valid_upgrade(b"/media/twilio/s1", sign(url))
        assert checker().is_valid_upgrade(b"/media/twilio/s1/", sign(url))
    for url in (
        "https://voice.example.com/media/twilio/s1",
        "ws://voice.example.com/media/twilio/s1",
        "wss://voice.example.com/media/twilio/s2",
        "wss://voice.example.com/media/twilio/s1//",
    ):
        assert not checker().is_valid_upgrade(b"/media/twilio/s1", sign(url))


def test_path_and_query_are_taken_as_they_came() -> None:
    """A decoded and encoded path is another path: %2F, %7e, + and the order of the query are part of what is signed."""
    path, query = b"/twilio/v%6Fice/%2F", b"b=1&a=%20+&b=0&empty="
    signed = sign(PUBLIC_URL + (path + b"?" + query).decode())
    assert checker().is_valid_form(path, query, (), signed)
    for other_path, other_query in (
        (b"/twilio/voice/%2F", query),
        (path, b"a=%20+&b=1&b=0&empty="),
        (path, b"b=1&a=%20%20&b=0&empty="),
        (path, b"b=1&a=%20+&b=0"),
    ):
        assert not checker().is_valid_form(other_path, other_query, (), signed)


def test_repeated_names_count_each_distinct_value_once() -> None:
    pairs = [("b", "2"), ("a", "2"), ("a", "1"), ("a", "2"), ("A", "0"), ("ä", "ü"), ("empty", "")]
    signed = sign(PUBLIC_URL + "/p", ImmutableMultiDict(pairs))
    assert checker().is_valid_form(b"/p", b"", pairs, signed)
    assert checker().is_valid_form(b"/p", b"", pairs[::-1], signed)
    assert not checker().is_valid_form(b"/p", b"", pairs[1:], signed)


def test_two_tokens_during_rotation() -> None:
    old, new, stranger = (sign(PUBLIC_URL + "/p", dict(VOICE), token) for token in ("old", "new", "stranger"))
    both = checker(PUBLIC_URL, "new", "old")
    assert both.is_valid_form(b"/p", b"", VOICE, old)
    assert both.is_valid_form(b"/p", b"", VOICE, new)
    assert not both.is_valid_form(b"/p", b"", VOICE, stranger)
    assert not checker(PUBLIC_URL, "new").is_valid_form(b"/p", b"", VOICE, old)
    assert not TwilioSignature(PUBLIC_URL, []).is_valid_form(
        b"/p", b"", VOICE, sign(PUBLIC_URL + "/p", dict(VOICE), "")
    )


def test_shared_keys() -> None:
    shared = {"webhooks_sharedkey_1": "s-one", "webhooks_sharedkey_2": "s-two"}
    one = TwilioSignature(PUBLIC_URL, [TOKEN], shared)
    url, params = PUBLIC_URL + "/p", dict(VOICE)
    for name, secret in shared.items():
        for algorithm in ("HMAC_SHA256", "HMAC_SHA1", "hmac_sha256"):
            header = f"key={name},algorithm={algorithm}"
            assert one.is_valid_form(b"/p", b"", VOICE, sign(url, params, secret, algorithm), header)
            assert one.is_valid_form(b"/p", b"", VOICE, sign(url, params, secret, algorithm), f" {header} ")
            assert not one.is_valid_form(b"/p", b"", VOICE, sign(url, params, TOKEN, algorithm), header)
    sha256 = sign(url, params, "s-one", "HMAC_SHA256")
    for header in (
        "key=webhooks_sharedkey_2,algorithm=HMAC_SHA256",
        "key=webhooks_sharedkey_1,algorithm=HMAC_SHA1",
        "key=webhooks_sharedkey_1,algorithm=HMAC_MD5",
        "key=webhooks_sharedkey_3,algorithm=HMAC_SHA256",
        "algorithm=HMAC_SHA256",
        "",
        ",=,==",
        None,
    ):
        assert not one.is_valid_form(b"/p", b"", VOICE, sha256, header), header
    # Without an algorithm the header means nothing: the account's token signed, by SHA-1.
    classic = sign(url, params)
    for settings_header in (None, "", "key=webhooks_sharedkey_1", "algorithm="):
        assert get_signature_algorithm(settings_header) == "HMAC_SHA1"
        assert one.is_valid_form(b"/p", b"", VOICE, classic, settings_header)
    assert not one.is_valid_form(b"/p", b"", VOICE, classic, "key=webhooks_sharedkey_1,algorithm=HMAC_SHA1")


@pytest.mark.slow
def test_agrees_with_twilios_library_on_mutations() -> None:
    """1,000 seeded changes of valid requests, in the signature, a parameter, the URL or the token; and 50 unchanged."""
    rng = random.Random(20261103)
    accepted = 0
    for number in range(1050):
        token = "".join(rng.choices("0123456789abcdef", k=32))
        base = rng.choice(["https://voice.example.com", "https://v.example.com:8443", "http://127.0.0.1:8080"])
        path, query = "/twilio/voice", rng.choice(["", "tenant=acme", "a=1&b=%2B2&a=1"])
        pairs = [*VOICE, *((f"P{i}", "".join(rng.choices(string.printable, k=5))) for i in range(rng.randrange(4)))]
        if rng.random() < 0.3:
            pairs.append(("From", rng.choice(["+1", "", "+4915112345678"])))
        url = base + path + (f"?{query}" if query else "")
        signed = sign(url, ImmutableMultiDict(pairs), token)
        kind = "none" if number >= 1000 else rng.choice(["hash", "param", "url", "token"])
        if kind == "hash":
            at = rng.randrange(len(signed))
            signed = rng.choice(
                [
                    signed[:at] + chr(ord(signed[at]) ^ 1 << rng.randrange(6)) + signed[at + 1 :],
                    signed[:at],
                    signed + "A",
                    "",
                ]
            )
        elif kind == "param":
            at = rng.randrange(len(pairs))
            name, value = pairs[at]
            change = rng.randrange(6)
            if change == 0:
                pairs[at] = (name, value + rng.choice("0 \n\0ü"))
            elif change == 1:
                pairs[at] = (name + "x", value)
            elif change == 2:
                del pairs[at]
            elif change == 3:
                pairs.append((name, value))  # the same pair again: still what was signed
            elif change == 4:
                pairs.append((rng.choice(["", "A", "zz"]), rng.choice(["", "x"])))
            else:
                pairs.reverse()
        elif kind == "url":
            change = rng.randrange(5)
            if change == 0:
                at = rng.randrange(1, len(path))
                path = path[:at] + rng.choice("abc./%2-") + path[at + 1 :]
            elif change == 1:
                path = rng.choice([path + "/", path.upper(), "/" + path, "/x" + path])
            elif change == 2:
                query = rng.choice([query + "&x=1", "x=1", query.replace("1", "2"), query.upper()])
            elif change == 3:
                base = rng.choice(
                    [
                        base.replace("example", "exampIe").replace("127", "128"),
                        base + ":444"[: 4 * (base.count(":") < 2)],
                    ]
                )
            else:
                base = base.replace("https", "http") if base.startswith("https") else base.replace("http", "https")
        elif kind == "token":
            at = rng.randrange(32)
            token = token[:at] + rng.choice("ghijk") + token[at + 1 :]
        url = base + path + (f"?{query}" if query else "")
        theirs = RequestValidator(token).validate(url, ImmutableMultiDict(pairs), signed)
        ours = TwilioSignature(base, [token]).is_valid_form(path.encode(), query.encode(), pairs, signed)
        assert ours == theirs, (number, kind, url, pairs, signed)
        accepted += ours
        assert kind != "none" or ours
        assert kind not in ("hash", "token") or not ours
    assert 50 < accepted < 300, "some changes leave what was signed as it was"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=40), st.binary(max_size=40), st.text(max_size=200), st.text(max_size=60) | st.none())
def test_nothing_in_a_request_raises(path: bytes, query: bytes, signature: str, header: str | None) -> None:
    one = TwilioSignature(PUBLIC_URL, [TOKEN], {"k": "s"})
    assert not one.is_valid_form(path, query, [("a\ud800", "b")], signature, header)
    assert not one.is_valid_upgrade(path, signature, header)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "voice.example.com",
        "ftp://x",
        "https://",
        "https://u:p@h.example",
        "https://h.example/?a=1",
        "https://h.example#x",
    ],
)
def test_public_url_must_be_one(url: str) -> None:
    with pytest.raises(ConfigError, match="PUBLIC_URL"):
        TwilioSignature(url, [TOKEN])


def test_empty_secrets_are_refused() -> None:
    """HMAC takes an empty key gladly, and everybody knows that one."""
    with pytest.raises(ConfigError, match="TWILIO_AUTH_TOKEN"):
        TwilioSignature(PUBLIC_URL, ["x", ""])
    with pytest.raises(ConfigError, match="TWILIO_SHARED_KEYS"):
        TwilioSignature(PUBLIC_URL, ["x"], {"k": ""})


def test_ipv6_host() -> None:
    for public_url in ("http://[::1]", "http://[::1]:8080"):
        port = "8080" if "8080" in public_url else "80"
        for url in ("http://[::1]/p", f"http://[::1]:{port}/p"):
            digest = hmac.new(TOKEN.encode(), url.encode(), "sha1").digest()
            assert checker(public_url).is_valid_form(b"/p", b"", (), base64.b64encode(digest).decode())


# ── Telnyx ────────────────────────────────────────────────────────────────────────────────────────────────────

TELNYX_KEY = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
TELNYX_TIME = "1793700900"
TELNYX_BODY = (
    b'{"data":{"event_type":"call.initiated","id":"0ccc7b54-4df3-4bca-a65a-3da1ecc777f0",'
    b'"occurred_at":"2026-11-03T10:15:00.000000Z","payload":{"call_control_id":"v3:demo"},"record_type":"event"},'
    b'"meta":{"attempt":1,"delivered_to":"https://voice.example.com/telnyx"}}'
)
TELNYX_SIGNATURE = "wKSiPVpJLrfsmK7kwBhN+aZ8odu31EkOQ6uhzwquAtzsA41IgondQick0tqoq8GTB8TcAQS/wsYI1IBRlJKJAA=="


def test_telnyx_vector() -> None:
    one = TelnyxSignature(TELNYX_KEY)
    now_s = float(TELNYX_TIME)
    assert one.is_valid(TELNYX_BODY, TELNYX_SIGNATURE, TELNYX_TIME, now_s)
    for skew_s in (-300, 300):
        assert one.is_valid(TELNYX_BODY, TELNYX_SIGNATURE, TELNYX_TIME, now_s + skew_s)
    for skew_s in (-301, 301, 86400 * 365):
        assert not one.is_valid(TELNYX_BODY, TELNYX_SIGNATURE, TELNYX_TIME, now_s + skew_s)


def test_telnyx_refuses_what_was_not_signed() -> None:
    one, now_s = TelnyxSignature(TELNYX_KEY), float(TELNYX_TIME)
    rewritten = TELNYX_BODY.replace(b'":', b'": ')
    assert not one.is_valid(rewritten, TELNYX_SIGNATURE, TELNYX_TIME, now_s)
    assert not one.is_valid(TELNYX_BODY, TELNYX_SIGNATURE, "1793700901", now_s)
    for bit in range(0, len(TELNYX_BODY) * 8, 37):
        body = bytearray(TELNYX_BODY)
        body[bit // 8] ^= 1 << bit % 8
        assert not one.is_valid(bytes(body), TELNYX_SIGNATURE, TELNYX_TIME, now_s)
    for timestamp in ("", "-1793700900", "1793700900.0", " 1793700900", "1" * 400, "١٧٩٣٧٠٠٩٠٠", "nan"):
        assert not one.is_valid(TELNYX_BODY, TELNYX_SIGNATURE, timestamp, now_s)
    for signature in ("", "AAAA", "!" * 88, TELNYX_SIGNATURE[:-2], TELNYX_SIGNATURE + "AAAA", "ü" * 88, "A" * 4000):
        assert not one.is_valid(TELNYX_BODY, signature, TELNYX_TIME, now_s)


def test_telnyx_other_key() -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
    signed = base64.b64encode(other.sign(TELNYX_TIME.encode() + b"|" + TELNYX_BODY)).decode()
    assert not TelnyxSignature(TELNYX_KEY).is_valid(TELNYX_BODY, signed, TELNYX_TIME, float(TELNYX_TIME))
    for key in ("", "AAAA", "not base64!", TELNYX_KEY + "AAAA"):
        with pytest.raises(ConfigError, match="TELNYX_PUBLIC_KEY"):
            TelnyxSignature(key)
