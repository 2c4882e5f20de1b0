"""What a tool does not keep on record is in no capture, and the capture still decides the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from server.agent.settings import AgentSettings
from server.agent.tool_settings import ToolSettings
from server.call.capture import CaptureStore
from server.call.capture_file import Step, read
from server.call.replay import lines, replay_capture
from server.call.toolmask import ToolMask
from server.dialogue import event as ev
from server.wire.event import MediaFormat
from tests.call.captured import OPENING, Captured, inflated, opened, with_store
from tests.dialogue.driver import BASE, RATE_HZ, Driver

PAY: dict[str, Any] = {
    "name": "pay",
    "url": "https://tools.example/pay",
    "parameters": {
        "type": "object",
        "properties": {
            "card": {"type": "string", "pattern": "^[A-Za-zü]+ [0-9 ]+$"},
            "pin": {"type": "integer"},
            "cents": {"type": "integer"},
        },
        "required": ["card", "pin"],
        "additionalProperties": False,
    },
    "redact": ["card", "pin"],
}
GIVEN = {"card": "Quüip 4539 1488", "pin": 8642, "cents": 1250}
KEPT = {"card": "xxxxx 1111 1111", "pin": 1111, "cents": 1250}


@pytest.mark.parametrize(
    ("arguments", "is_called"),
    [
        (json.dumps(GIVEN), True),
        (json.dumps(GIVEN, ensure_ascii=False, indent=1), True),
        (json.dumps({"card": "Quüip 4539 1488"}), False),  # no PIN: the schema refuses it
        ('{"card": "Quüip 4539 1488", "pin": 8642', False),
        ('["Quüip", "4539 1488", 8642]', False),
    ],
)
def test_what_a_tool_does_not_keep_is_in_no_capture_and_it_replays_the_same(
    tmp_path: Path, arguments: str, is_called: bool
) -> None:
    def body(store: CaptureStore) -> None:
        driver = Captured(opened(store, tools=[PAY]), tools=[PAY])
        driver.begin()
        driver.speaks("I want to pay")
        driver.wait(600)
        driver.feed(
            ev.ReplyTool(driver.reply_no, "id-1", "pay", arguments), ev.ReplyDone(driver.reply_no, "tool_calls")
        )
        driver.feed(ev.StreamEnded("caller_hung_up"))
        driver.capture.close("caller_hung_up", {})

    with_store(tmp_path, body)
    path = tmp_path / "call-1.capture"
    data = inflated(path)
    assert b"I want to pay" in data and b"id-1" in data
    assert not any(one in data for one in (b"4539", b"8642", b"Qu"))
    steps = [one for one in read(path) if isinstance(one, Step)]
    invoked = [values["arguments"] for one in steps for name, values in one.actions if name == "InvokeTool"]
    assert [json.loads(one) for one in invoked] == [KEPT] * is_called
    result = replay_capture(path)
    assert result.is_same and result.steps == len(steps), "\n".join(lines(result))


def test_shape_stays_and_other_tools_are_as_they_were() -> None:
    mask = ToolMask([ToolSettings(name="pay", redact=("who",)), ToolSettings(name="look")])
    who = {"Name": "Ann-Lee", "born": [1985, -2.5, True, None], "no": "٤2"}
    call = {"tool_no": 1, "name": "pay", "arguments": json.dumps({"who": who, "to": "Ann"})}
    other = {**call, "tool_no": 2, "name": "look"}
    text = {"text": "pay", "name": "pay"}
    values, [[_, pay], [_, look]] = mask.step(
        "ReplyText", text, [["InvokeTool", call], ["InvokeTool", other]], masks_keys=False
    )
    assert json.loads(pay["arguments"]) == {
        "who": {"Name": "xxx-xxx", "born": [1111, -1.1, True, None], "no": "11"},
        "to": "Ann",
    }
    assert look == other and values is text


CARD = "4539148803436467"
CARD_PAY: dict[str, Any] = {
    "name": "pay",
    "url": "https://tools.example/pay",
    "parameters": {
        "type": "object",
        "properties": {
            "card": {"type": "string", "pattern": "^[0-9]{16}$"},
            "line1": {"type": "string"}, "line2": {"type": "string"},
            "cents": {"type": "number", "minimum": 500},
        },
    },
}  # fmt: skip


class Paying(Captured):
    def __init__(self, store: CaptureStore, redact: list[str]) -> None:
        raw: dict[str, Any] = {"tools": [{**CARD_PAY, "redact": redact}]}
        Driver.__init__(self, **raw)
        self.store, self.settings = store, AgentSettings.parse({**BASE, **raw})
        self.open(resumed=False)

    def open(self, *, resumed: bool) -> None:
        fmt = MediaFormat("PCMU", RATE_HZ)
        capture = self.store.open(
            self.settings, call_id="call-1", carrier="twilio", stream_id="MZ1", fmt=fmt, scored=False,
            may_reorder=False, resumed=resumed,
        )  # fmt: skip
        assert capture is not None
        self.capture = capture
        capture.begin(OPENING)

    def calls(self, *arguments: str, name: str = "pay") -> None:
        number = self.reply_no
        for at, one in enumerate(arguments):
            self.feed(ev.ReplyTool(number, f"c{number}-{at}", name, one))
        self.feed(ev.ReplyDone(number, "tool_calls", 1, 1))

    def asks(self, words: str) -> None:
        self.speaks(words)
        self.wait(600)


GOOD = {"card": CARD, "line1": "7 Elm", "line2": "Flat 12", "cents": 1250.5}


@pytest.mark.parametrize("keys", ["", "7#"])
def test_what_is_redacted_is_not_in_the_capture_and_it_replays_the_same(tmp_path: Path, keys: str) -> None:
    """With keys pressed before, digits are masked as well, which the schema would refuse."""

    def body(store: CaptureStore) -> None:
        d = Paying(store, ["card", "pin"])
        d.begin()
        for key in keys:
            d.feed(ev.DigitReceived(key))
        d.asks("please pay")
        d.calls(json.dumps(GOOD), json.dumps({**GOOD, "card": CARD + "9"}), f'{{"card": {CARD}', f'["{CARD}"]')
        d.feed(ev.ToolFinished(1, f"charged {CARD}"))
        d.calls(json.dumps({"card": CARD}), name="pay_now")
        d.calls(json.dumps({**GOOD, "cents": 1e999}), json.dumps({**GOOD, "cents": 777}))
        d.feed(ev.StreamEnded("media_lost"))
        d.capture.close("media_lost", {})
        d.open(resumed=True)
        d.feed(ev.StreamResumed(), ev.ToolFinished(2, f"charged {CARD} again"))
        d.play_all()
        d.feed(ev.StreamEnded("caller_hung_up"))
        d.capture.close("caller_hung_up", {})
        assert sum(isinstance(one, ev.InvokeTool) for one in d.actions) == 2

    with_store(tmp_path, body)
    path = tmp_path / "call-1.capture"
    assert CARD.encode() not in inflated(path)
    steps = [one for one in read(path) if isinstance(one, Step)]
    assert [one.values["fits"] for one in steps if one.name == "ReplyTool"] == [
        True,
        False,
        False,
        False,
        None,
        False,
        True,
    ]
    results = [one.values["result"] for one in steps if one.name == "ToolFinished"]
    assert results == ["charged (redacted)", "(redacted)"]
    assert replay_capture(path).is_same


def test_without_anything_to_redact_all_of_it_is_kept(tmp_path: Path) -> None:
    def body(store: CaptureStore) -> None:
        d = Paying(store, [])
        d.begin()
        d.asks("please pay")
        d.calls(json.dumps(GOOD))
        d.feed(ev.ToolFinished(1, "charged 1250"))
        d.capture.close("caller_hung_up", {})

    with_store(tmp_path, body)
    path = tmp_path / "call-1.capture"
    assert inflated(path).count(CARD.encode()) == 2 and b"charged 1250" in inflated(path)
    assert replay_capture(path).is_same


def test_results_do_not_repeat_keys(tmp_path: Path) -> None:
    def body(store: CaptureStore) -> None:
        d = Paying(store, [])
        d.begin()
        d.feed(ev.DigitReceived("7"), ev.DigitReceived("#"))
        d.calls(json.dumps(GOOD))
        d.feed(ev.ToolFinished(1, f"charged {CARD}"))
        d.capture.close("caller_hung_up", {})

    with_store(tmp_path, body)
    path = tmp_path / "call-1.capture"
    assert CARD.encode() not in inflated(path) and b'\\"line1\\": \\"1 Elm\\", \\"line2\\"' in inflated(path)
    assert replay_capture(path).is_same
