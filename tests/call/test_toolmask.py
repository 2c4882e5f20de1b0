"""What a tool does not keep on record is in no capture, and the capture still decides the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from server.agent.tool_settings import ToolSettings
from server.call.capture import CaptureStore
from server.call.capture_file import Step, read
from server.call.replay import lines, replay_capture
from server.call.toolmask import ToolMask
from server.dialogue import event as ev
from tests.call.captured import Captured, inflated, opened, with_store

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
    assert json.loads(mask.values("InvokeTool", call)["arguments"]) == {
        "who": {"Name": "xxx-xxx", "born": [1111, -1.1, True, None], "no": "11"},
        "to": "Ann",
    }
    other = {**call, "name": "look"}
    assert mask.values("InvokeTool", other) is other
    text = {"text": "pay", "name": "pay"}
    assert mask.values("ReplyText", text) is text
    assert mask and not ToolMask([ToolSettings(name="look")])
