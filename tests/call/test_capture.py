"""The file of a call: whole, without secrets, bounded, readable after a crash; and its troubles are its own."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

import orjson
import pytest

from audio_native.tape import TAPE_MEDIA
from audio_native.uplink import Uplink
from providers.base import PCMU_8K
from server.__main__ import main
from server.agent.settings import AgentSettings
from server.call import capture as capture_module
from server.call.capture import Capture, CaptureStore
from server.call.capture_file import (
    MAGIC,
    Audio,
    CaptureError,
    End,
    Head,
    Note,
    Step,
    Tape,
    Text,
    frame,
    of_tape,
    read,
    tape_block,
)
from server.call.replay import replay_capture
from server.call.scrub import scrubbed
from server.call.stepper import Stepper
from server.clock import SystemClock
from server.dialogue import conversation
from server.dialogue import event as ev
from tests.call.captured import Captured, begun, inflated, opened, packed, record, talk, with_store
from tests.dialogue.driver import Driver

NOISE = random.Random(3)
DTMF = b'{"event":"dtmf","streamSid":"MZ1","sequenceNumber":"9","dtmf":{"track":"inbound_track","digit":"5"}}'


def hears(capture: Capture, chunk: int, payload: bytes) -> None:
    uplink = Uplink(grammar=None, codec="PCMU", tape=capture.tape)
    capture.tape.now_ns = chunk * 20_000_000
    uplink.feed_payload(payload, chunk, chunk * 20)


def test_everything_is_there_in_order(tmp_path: Path) -> None:
    def body(store: CaptureStore) -> None:
        one = opened(store, audio=True, keys=True)
        hears(one, 1, b"a" * 160)
        one.text(DTMF)
        one.step(5, ev.DigitReceived("5"), [ev.SetTimer("digits", 9)])
        one.audio(3, 800, PCMU_8K.encoding, PCMU_8K.rate_hz)
        one.note("final", {"utterance_no": 1, "text": "late"})
        hears(one, 2, b"b" * 160)
        one.text(b"\x00" * 7, is_text=False)
        one.close("caller_hung_up", {"frames_in": 2})

    with_store(tmp_path, body)
    head, tape, text, step, audio, note, second, binary, end = read(tmp_path / "call-1.capture")
    assert isinstance(head, Head) and (head.carrier, head.codec, head.has_audio) == ("twilio", "PCMU", True)
    assert AgentSettings.parse(head.settings).capture.audio
    assert isinstance(tape, Tape) and tape.entries == [(TAPE_MEDIA, 20_000_000, 1, 20, 160, b"a" * 160)]
    assert isinstance(text, Text) and orjson.loads(text.text or "")["dtmf"]["digit"] == "5" and text.size == len(DTMF)
    assert step == Step(5, "DigitReceived", {"digit": "5"}, [["SetTimer", {"name": "digits", "due_ns": 9}]])
    assert isinstance(audio, Audio) and (audio.clause_no, audio.size, audio.rate_hz) == (3, 800, 8000)
    assert isinstance(note, Note) and note.values["text"] == "late"
    assert isinstance(second, Tape) and second.entries[0][5] == b"b" * 160
    assert isinstance(binary, Text) and (binary.text, binary.size, binary.is_text) == (None, 7, False)
    assert isinstance(end, End) and end.reason == "caller_hung_up"
    assert not end.is_truncated and end.counters == {"frames_in": 2}


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    path = record(tmp_path / "capture")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_secrets_are_nowhere_in_it(tmp_path: Path) -> None:
    data = inflated(record(tmp_path))
    assert b"ReplyFailed" in data and b"down: key removed refused" in data
    assert b"customParameters" in data
    for secret in (b"sk-hidden-key", b"very-single-use"):
        assert secret not in data


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        (b'{"event":"connected","connected":{"stream_auth_token":"s3cret"}}', '"stream_auth_token":"removed"'),
        (b'{"start":{"custom_parameters":[{"name":"a","value":"s3cret"}]}}', '[{"name":"a","value":"removed"}]'),
        (b'{"event":"start","secret":"s3cret","sampleRate":16000}', '"sampleRate":16000'),
        (b'{"media":{"payload":"s3cret","track":"outbound"}}', '"track":"outbound"'),
        (
            b'{"start":{"customParameters":{"pin":53,"vip":true,"of":[5.3,"s3cret"]}}}',
            '{"pin":"removed","vip":"removed","of":["removed","removed"]}',
        ),
        (b'{"start":{"customParameters":{"name":"s3cret","none":null}}}', '{"name":"removed","none":null}'),
        (b'{"custom_parameters":[{"name":{"a":"s3cret"},"value":5}]}', '[{"name":{"a":"removed"},"value":"removed"}]'),
        (b'{"token":53}', '{"token":"removed"}'),
    ],
)
def test_messages_lose_their_secrets_and_keep_their_shape(message: bytes, kept: str) -> None:
    text = scrubbed(message, keeps_audio=False, keeps_keys=False)
    assert text is not None and kept in text and "s3cret" not in text
    assert orjson.loads(text).keys() == orjson.loads(message).keys()


@pytest.mark.parametrize("message", [b"s3cret", b'{"secret":"s3cret', b"[" * 900 + b"]" * 900, b"\xff"])
def test_messages_that_cannot_be_read_are_not_kept(message: bytes) -> None:
    assert scrubbed(message, keeps_audio=True, keeps_keys=True) is None


def test_audio_is_kept_only_where_the_agent_says_so(tmp_path: Path) -> None:
    payload = NOISE.randbytes(160)
    for audio in (False, True):
        folder = tmp_path / str(audio)

        def body(store: CaptureStore, audio: bool = audio) -> None:
            one = opened(store, audio=audio)
            hears(one, 1, payload)
            one.close("caller_hung_up", {})

        with_store(folder, body)
        assert (payload in inflated(folder / "call-1.capture")) is audio


def test_an_agent_without_captures_has_none(tmp_path: Path) -> None:
    def body(store: CaptureStore) -> None:
        with pytest.raises(AssertionError):
            opened(store, enabled=False)

    with_store(tmp_path / "capture", body)
    assert not (tmp_path / "capture").exists()


def test_a_second_stream_goes_on_in_the_same_file(tmp_path: Path) -> None:
    def body(store: CaptureStore) -> None:
        opened(store).close("media_lost", {})
        opened(store, resumed=True).close("caller_hung_up", {})

    with_store(tmp_path, body)
    found = list(read(tmp_path / "call-1.capture"))
    assert [one.resumed for one in found if isinstance(one, Head)] == [False, True]
    assert [one.reason for one in found if isinstance(one, End)] == ["media_lost", "caller_hung_up"]


def test_a_full_file_says_so_and_is_no_larger(tmp_path: Path) -> None:
    def body(store: CaptureStore) -> None:
        one = opened(store, audio=True, max_bytes=65_536)
        for chunk in range(1, 3000):
            hears(one, chunk, NOISE.randbytes(160))
            one.step(chunk, ev.TimerFired("none"), [])
            if chunk % 50 == 0:
                one.hand_over()  # as the store's timer does
        while not one.is_over:  # until the writer has said that it is full
            one.text(DTMF)
            one.hand_over()
        hears(one, 4000, bytes(160))
        one.step(0, ev.TimerFired("late"), [])
        one.close("caller_hung_up", {})
        assert one.tape.take() == b""

    with_store(tmp_path, body)
    path = tmp_path / "call-1.capture"
    assert path.stat().st_size <= 65_536
    found = list(read(path))
    assert isinstance(found[-1], End) and found[-1].is_truncated and len(found) > 300
    assert b"late" not in inflated(path)


def test_a_crash_costs_the_records_that_were_not_whole(tmp_path: Path) -> None:
    path = record(tmp_path)
    raw, whole = path.read_bytes(), list(read(path))
    seen = set()
    for cut in range(len(MAGIC), len(raw)):
        path.write_bytes(raw[:cut])
        found = list(read(path))
        assert found == whole[: len(found)]
        seen.add(len(found))
    assert seen > {0, len(whole) - 1}


def test_a_stream_after_a_crash_is_read_too(tmp_path: Path) -> None:
    """And a caller whose audio looks like the beginning of a part cannot hide it."""
    path = record(tmp_path)
    raw = path.read_bytes()
    for between in (b"", MAGIC + b"\x00\x02\0\0garbage", MAGIC, MAGIC[:5], raw[len(MAGIC) : 100]):
        path.write_bytes(raw + between + raw)
        found = list(read(path))
        assert [type(one) for one in found].count(Head) == 2 and isinstance(found[-1], End)


def test_an_unwritable_folder_ends_the_capture_and_not_the_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    path = record(tmp_path / "file" / "capture")  # nothing is raised
    assert not path.exists()
    assert "capture ended" in caplog.text


def test_a_full_disk_ends_the_capture_and_not_the_call(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    (tmp_path / "call-1.capture").symlink_to("/dev/full")
    record(tmp_path)
    assert "No space left" in caplog.text


def test_a_hanging_disk_fills_a_bounded_buffer_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_module, "MAX_WAITING_BYTES", 200_000)
    monkeypatch.setattr(capture_module, "HAND_OVER_BYTES", 10_000)
    # Opening a pipe that nobody reads hangs, as a dead network disk does.
    pipe = tmp_path / "call-1.capture"
    os.mkfifo(pipe)

    def body(store: CaptureStore) -> None:
        driver = Captured(opened(store))
        for _ in range(1000):
            if driver.capture.is_over:
                break
            talk(driver)
            driver.talk = Driver().talk
        assert driver.capture.is_over and store.refused == 1
        talk(driver)
        driver.capture.close("caller_hung_up", {})
        os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))  # the disk is back, and gone

    with_store(tmp_path, body)


@pytest.mark.parametrize("raw", [b"", b"hello\n", b'{"journal":1}\n', MAGIC[:-1]])
def test_a_strange_file_is_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "call.capture"
    path.write_bytes(raw)
    with pytest.raises(CaptureError):
        list(read(path))


@pytest.mark.parametrize(
    "records",
    [
        frame(ord("S"), b'[1,"TimerFired",{},[]]'),  # no head before it
        frame(ord("H"), b'{"capture":2}'),
        frame(ord("H"), b'{"capture":1}'),
        frame(ord("H"), b"{"),
        b"S\xff\xff\xff\xff",
    ],
)
def test_a_damaged_record_is_refused(tmp_path: Path, records: bytes) -> None:
    path = tmp_path / "call.capture"
    path.write_bytes(packed(records))
    with pytest.raises(CaptureError):
        list(read(path))


@pytest.mark.parametrize(
    ("tape", "said", "refusal"),
    [
        (b"", 1, "less tape"),
        (b"\x02\x02", 3, "less tape"),
        (bytes(5_000_000), 1, "more tape"),
        (b"\x07\x02", 2, "tag 7"),
    ],
)
def test_tape_that_does_not_fit_its_records_is_refused(tmp_path: Path, tape: bytes, said: int, refusal: str) -> None:
    records = begun(record(tmp_path)) + of_tape(said)
    path = tmp_path / "call.capture"
    made = packed(records)
    path.write_bytes(MAGIC + tape_block(tape) + made[len(MAGIC) :])
    with pytest.raises(CaptureError, match=refusal):
        list(read(path))


def test_silence_is_short_and_speech_is_as_it_came(tmp_path: Path) -> None:
    sizes = []
    for folder, payload in (("silence", b"\xff" * 160), ("speech", NOISE.randbytes(160))):

        def body(store: CaptureStore, payload: bytes = payload) -> None:
            one = opened(store, audio=True)
            for chunk in range(1, 501):
                hears(one, chunk, payload)
            one.close("caller_hung_up", {})

        with_store(tmp_path / folder, body)
        path = tmp_path / folder / "call-1.capture"
        entries = [entry for found in read(path) if isinstance(found, Tape) for entry in found.entries]
        assert [entry[5] for entry in entries] == [payload] * 500
        sizes.append(path.stat().st_size)
    silence, speech = sizes
    assert silence < 500 * 7 + 2000 and 80_000 < speech < 80_000 + 500 * 7 + 2000


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    head = begun(record(tmp_path))
    path = tmp_path / "bomb.capture"
    path.write_bytes(packed(head + 400 * frame(ord("N"), b'[1,"x",{"text":"%b"}]' % (b" " * 1_000_000))))
    with pytest.raises(CaptureError, match="expands"):
        for _ in read(path):
            pass


def test_nothing_is_left_in_the_loop(tmp_path: Path) -> None:
    def body(store: CaptureStore) -> None:
        one = opened(store)
        one.close("caller_hung_up", {})
        assert store._timer is None

    with_store(tmp_path, body)


def test_half_a_character_costs_neither_the_call_nor_its_replay(tmp_path: Path) -> None:
    def body(store: CaptureStore) -> None:
        driver = Captured(opened(store))
        driver.begin()
        driver.speaks("tell me \ud83d now please")
        driver.wait(600)
        driver.replies("It is half \udc00 of one.")
        driver.capture.note("final", {"utterance_no": 1, "text": "\ud83d"})
        driver.feed(ev.StreamEnded("caller_hung_up"))
        driver.capture.close("caller_hung_up", {})

    with_store(tmp_path, body)
    data = inflated(tmp_path / "call-1.capture").decode(errors="ignore")
    assert "tell me \ufffd now please" in data and "It is half \ufffd of one." in data
    assert replay_capture(tmp_path / "call-1.capture").is_same


def test_the_event_at_which_a_conversation_fails_is_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[str] = []

    def fails(c: object, event: ev.DigitReceived, now_ns: int) -> None:
        raise KeyError("a defect of the conversation")

    monkeypatch.setitem(conversation._STEPS, ev.DigitReceived, fails)

    def body(store: CaptureStore) -> None:
        one = opened(store)
        talk = Driver().talk
        stepper = Stepper("call-1", talk, SystemClock(), one, lambda action: None, lambda: failures.append("failed"))
        stepper.dispatch(ev.CallBegan())
        stepper.dispatch(ev.DigitReceived("5"))
        stepper.close()
        one.close("error", {})

    with_store(tmp_path, body)
    path = tmp_path / "call-1.capture"
    assert failures == ["failed"]
    steps = [one for one in read(path) if isinstance(one, Step)]
    assert [(one.name, one.actions == []) for one in steps] == [("CallBegan", False), ("DigitReceived", True)]
    assert main(["replay", str(path)]) == 2
    assert "DigitReceived cannot be decided: KeyError('a defect of the conversation')" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(["replay", str(path)]) in (0, 1), "mended, it can be decided"
