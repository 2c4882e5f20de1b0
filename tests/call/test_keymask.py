"""Which keys were pressed is not in a capture, unless the agent keeps them; it decides to the same again."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from audio_native.uplink import Uplink
from server.__main__ import main
from server.call.capture import CaptureStore
from server.call.capture_file import Head, Step, Text, read
from server.call.recompute import recompute
from server.call.replay import replay_capture
from server.call.scrub import scrubbed
from server.dialogue import event as ev
from tests.call.captured import Captured, inflated, opened, with_store
from tests.dialogue.driver import MS

CARD = "4539148803436467"
TALKS = 60


def dtmf(number: int, digit: str) -> bytes:
    return orjson.dumps(
        {
            "event": "dtmf", "streamSid": "MZ1", "sequenceNumber": str(number),
            "dtmf": {"track": "inbound_track", "digit": digit},
        }
    )  # fmt: skip


def press(driver: Captured, keys: str) -> None:
    """As the session has it: the carrier's message, then the event."""
    for number, key in enumerate(keys, 2):
        driver.capture.text(dtmf(number, key))
        driver.feed(ev.DigitReceived(key))
        driver.wait(120)


def pay(driver: Captured) -> None:
    """A question, a card by keys, a model that repeats it in every way, a second stream's worth of words."""
    driver.begin()
    driver.speaks("I was born in 1985")
    driver.wait(600)
    driver.replies("Then 1985 it is. Your card, please?")
    driver.play_all()
    press(driver, CARD + "#")
    number = driver.reply_no
    driver.feed(ev.ReplyTool(number, "call_77", "charge", orjson.dumps({"card": CARD, "cents": 1250}).decode()))
    driver.feed(ev.ReplyDone(number, "tool_calls", 10, 5), ev.ToolFinished(1, f"{CARD} is declined"))
    driver.replies(f"I have {CARD[:4]} {CARD[4:8]}. ", f"That is card {CARD}, is it?")
    driver.render(max(one.clause_no for one in driver.actions if isinstance(one, ev.Speak)))
    driver.feed(ev.SpeechStarted(driver.now_ns // MS))
    driver.wait(200)
    driver.feed(ev.SpeechConfirmed(), ev.SpeechStopped(0, 900, driver.now_ns))
    driver.final("yes it is, 12 fifty")
    driver.wait(600)
    driver.feed(ev.ReplyFailed(driver.reply_no, f"rejected: {CARD} 503"))
    driver.feed(ev.StreamEnded("caller_hung_up"))


def paid(folder: Path, **capture: Any) -> Path:
    def body(store: CaptureStore) -> None:
        driver = Captured(opened(store, **capture))
        pay(driver)
        driver.capture.close("caller_hung_up", {})

    with_store(folder, body)
    return folder / "call-1.capture"


def test_no_key_is_in_a_capture_and_it_replays_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = paid(tmp_path)
    data = inflated(path)
    assert CARD.encode() not in data and b"4539" not in data and " ".join(CARD).encode() not in data
    # What was said before keys, and what the caller says at any time, is as it was.
    assert b"born in 1985" in data and b"Then 1985 it is." in data and b"yes it is, 12 fifty" in data
    # Not everything is gone: how many there were, and when, decides.
    steps = [one for one in read(path) if isinstance(one, Step)]
    pressed = [one.values["digit"] for one in steps if one.name == "DigitReceived"]
    assert pressed == ["1"] * len(CARD) + ["#"]
    tool = next(one for one in steps if one.name == "ReplyTool")
    assert orjson.loads(tool.values["arguments"]) == {"card": "1" * 16, "cents": 1111}
    assert tool.values["tool_id"] == "call_77"
    result = replay_capture(path)
    assert result.is_same and result.is_masked and result.steps == len(steps)
    assert main(["replay", str(path)]) == 0
    said = capsys.readouterr().out
    assert "which keys were pressed is not in it" in said and "the same as recorded" in said
    assert main(["replay", str(path), "--json"]) == 0
    assert orjson.loads(capsys.readouterr().out)["masked"] is True


def test_an_agent_that_keeps_keys_has_them(tmp_path: Path) -> None:
    path = paid(tmp_path, keys=True)
    texts = [orjson.loads(one.text or "") for one in read(path) if isinstance(one, Text)]
    assert "".join(one["dtmf"]["digit"] for one in texts) == CARD + "#"
    assert f"That is card {CARD}, is it?".encode() in inflated(path)
    result = replay_capture(path)
    assert result.is_same and not result.is_masked


def test_a_call_without_keys_is_captured_to_the_digit(tmp_path: Path) -> None:
    def body(store: CaptureStore) -> None:
        driver = Captured(opened(store))
        driver.begin()
        driver.speaks("what does 42 cost")
        driver.wait(600)
        driver.replies("42 costs 1234 dollars.")
        driver.feed(ev.StreamEnded("caller_hung_up"))
        driver.capture.close("caller_hung_up", {})

    with_store(tmp_path, body)
    path = tmp_path / "call-1.capture"
    assert inflated(path).count(b"42 costs 1234 dollars.") >= 2
    result = replay_capture(path)
    assert result.is_same and not result.is_masked


def test_a_stream_that_goes_on_may_repeat_keys_of_the_one_before(tmp_path: Path) -> None:
    def body(store: CaptureStore) -> None:
        driver = Captured(opened(store))
        driver.begin()
        press(driver, CARD)
        driver.wait(1600)
        driver.feed(ev.StreamEnded("media_lost"))
        driver.capture.close("media_lost", {})
        driver.capture = opened(store, resumed=True)
        driver.feed(ev.StreamResumed())
        driver.play_all()
        driver.speaks("hello")
        driver.wait(600)
        driver.replies(f"You keyed {CARD}.")
        driver.feed(ev.StreamEnded("caller_hung_up"))
        driver.capture.close("caller_hung_up", {})

    with_store(tmp_path, body)
    path = tmp_path / "call-1.capture"
    assert [one.resumed for one in read(path) if isinstance(one, Head)] == [False, True]
    assert CARD.encode() not in inflated(path) and b"You keyed 1111111111111111." in inflated(path)
    assert replay_capture(path).is_same


def test_what_was_pressed_does_not_matter_for_any_decision(tmp_path: Path) -> None:
    """Talks at random: whatever is pressed and said when, the masked events lead to the masked decisions."""
    words = ("1.", "22", "3.50", "A.", "no.", "۴۵۳۹", "Dr.", "4711,", "7!", "yes", "0", "²", "5-6")
    masked = 0
    for seed in range(TALKS):
        dice = random.Random(seed)

        def body(store: CaptureStore, dice: random.Random = dice) -> None:
            driver = Captured(opened(store))
            driver.begin()
            for _ in range(12):
                said = " ".join(dice.choice(words) for _ in range(dice.randrange(1, 9)))
                match dice.randrange(5):
                    case 0 | 1:
                        press(driver, "".join(dice.choice("0123456789*#ABCD") for _ in range(dice.randrange(1, 6))))
                    case 2:
                        driver.play_all()
                        driver.speaks(said)
                    case 3 if any(isinstance(one, ev.RequestReply) for one in driver.actions):
                        driver.replies(*(f"{said} ", "and so on. ", said)[: dice.randrange(1, 4)])
                    case _:
                        for clause in driver.talk.unheard_clauses()[:1]:
                            driver.render(clause, 8000)
                            driver.heard = ((clause, dice.randrange(8000), 8000),)
                driver.wait(dice.choice((50, 700, 1700)))
            driver.feed(ev.StreamEnded("caller_hung_up"))
            driver.capture.close("caller_hung_up", {})

        with_store(tmp_path / str(seed), body)
        path = tmp_path / str(seed) / "call-1.capture"
        result = replay_capture(path)
        assert result.is_same, (seed, result.differences[:1])
        if result.is_masked:
            masked += 1
            after = False
            for one in read(path):
                if isinstance(one, Step):
                    after = after or one.name == "DigitReceived"
                    if after and not one.name.startswith("Transcript"):
                        texts = re.findall(r'"\w*text":"([^"]*)"', orjson.dumps([one.values, one.actions]).decode())
                        assert not re.search(r"[02-9]", " ".join(texts)), (seed, texts)
    assert masked > TALKS // 2


def test_with_audio_the_masked_keys_are_heard_again(tmp_path: Path) -> None:
    def body(store: CaptureStore) -> None:
        driver = Captured(opened(store, audio=True))
        uplink = Uplink(grammar=None, codec="PCMU", tape=driver.capture.tape)
        driver.feed(ev.CallBegan())
        driver.capture.tape.now_ns = driver.now_ns
        uplink.feed_payload(b"\xff" * 160, 1, 20)
        press(driver, "42#")
        driver.feed(ev.StreamEnded("caller_hung_up"))
        driver.capture.close("caller_hung_up", {})

    with_store(tmp_path, body)
    for result in (replay_capture(tmp_path / "call-1.capture"), recompute(tmp_path / "call-1.capture")):
        assert result.is_same and result.heard == 3 and result.is_masked


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        (dtmf(2, "7"), b'"digit":"1"'),
        (dtmf(2, "*"), b'"digit":"*"'),
        (dtmf(2, "#"), b'"digit":"#"'),
        (b'{"event":"dtmf","digit":"D"}', b'"digit":"D"'),
        # None of these is a key; nor is what is kept of them.
        (dtmf(2, CARD), b'"digit":"removed"'),
        (b'{"event":"dtmf","digit":7}', b'"digit":"removed"'),
        (b'{"event":"dtmf","digit":["7",{"a":"7"}]}', b'"digit":"removed"'),
        (b'{"event":"dtmf","digit":null}', b'"digit":null'),
    ],
)
def test_keys_in_messages(message: bytes, kept: bytes) -> None:
    text = scrubbed(message, keeps_audio=True, keeps_keys=False)
    assert text is not None and kept in text.encode() and CARD not in text and "7" not in text
    assert orjson.loads(scrubbed(message, keeps_audio=True, keeps_keys=True) or "") == orjson.loads(message)
