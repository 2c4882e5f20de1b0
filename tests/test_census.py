"""The judge of what calls leave behind (tests/support/census.py): it sees one leaked thing of each kind by its name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# In a process of its own: what other tests left would be put away, and their loops are closed.
SCRIPT = """
import asyncio, json, socket, threading
import azure.cognitiveservices.speech as speech
from audio_native.ring import WireRing
from audio_native.tape import Tape
from providers.azure.sdk_native import Native
from tests.support.census import grown, take

def native():
    config = speech.SpeechConfig(subscription="key", host="ws://127.0.0.1:1")
    synthesizer = speech.SpeechSynthesizer(config, None)
    connection = speech.Connection.from_speech_synthesizer(synthesizer)
    return Native([config, connection, synthesizer], [], lambda: None)

async def main():
    native().release()  # what the SDK keeps for all objects is there now
    await take()
    before = await take()
    unchanged = await take()
    left, event = [native(), WireRing(8192), Tape(), socket.socket()], threading.Event()
    thread = threading.Thread(target=event.wait, name="forgotten")
    thread.start()
    task = asyncio.create_task(asyncio.Event().wait())
    after = await take()
    left[0].release()
    left.clear()
    event.set()
    thread.join()
    task.cancel()
    last = await take()
    print(json.dumps([grown(before, one) for one in (unchanged, after, last)]))

asyncio.run(main())
"""


@pytest.mark.slow
def test_each_thing_that_is_left_over_is_seen_and_named() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], check=False, cwd=ROOT, capture_output=True, text=True, timeout=40
    )
    assert done.returncode == 0, done
    unchanged, after, last = json.loads(done.stdout)
    assert (unchanged, last) == ({}, {})
    one = {
        "tasks: Event.wait": [0, 1],
        "threads: forgotten": [0, 1],
        "objects: audio_native.ring.WireRing": [0, 1],
        "objects: audio_native.ring.Slab": [0, 1],
        "objects: audio_native.tape.Tape": [0, 1],
        "objects: providers.azure.sdk_native.Native": [0, 1],
        "objects: azure.cognitiveservices.speech.SpeechSynthesizer": [0, 1],
        "objects: azure.cognitiveservices.speech.Connection": [0, 1],
    }
    assert {name: pair for name, pair in after.items() if name in one} == one
    assert "descriptors" in after
