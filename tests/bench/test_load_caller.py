"""The bench judges itself: a server that loses, repeats, confuses or damages turns must be seen through."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from bench.load.figure import parse_buckets, percentile, percentiles, quantile, subtract, table
from bench.load.load_caller import LoadCaller, LoadRecord
from bench.load.tone import crc16
from bench.sim.sound import Clip
from bench.sim.twilio import Exchange
from providers.offline.scripted import render
from tests.bench.stand_in import PUBLIC, Behaviour, StandIn, tone

CLIP = Clip.from_pcmu(tone(300, 300), text="a tone", source="test")
NUMBER = "+15552000012"
TURNS = 3
Reply = Callable[[int, str], bytes]


def answer(call: int, turn: int, words: str) -> bytes:
    code = f"code {call} {turn} {crc16(words.encode())}"
    return render(f"{code}, this is the scripted reply that the generator takes apart")


def right(turn: int, caller: str) -> bytes:
    return answer(12, turn, f"turn {turn} of {caller}")


def all_but_a_word(turn: int, caller: str) -> bytes:
    return right(turn, caller)[:-1200]


def split(turn: int, caller: str) -> bytes:
    last = 2 * turn
    return answer(12, last, f"turn {last - 1} of {caller} turn {last} of {caller}")


def other_call(turn: int, caller: str) -> bytes:
    return answer(13, turn, f"turn {turn} of {caller}")


def other_words(turn: int, caller: str) -> bytes:
    return answer(12, turn, f"turn {turn} of {caller}!")


def repeated(turn: int, caller: str) -> bytes:
    return right(1, caller)


def damaged(turn: int, caller: str) -> bytes:
    audio = right(turn, caller)
    return audio[:3000] + b"\xff" * 800 + audio[3800:]


def to_somebody_else_too(turn: int, caller: str) -> bytes:
    return right(turn, caller) + other_call(turn, caller)


def wordy(turn: int, caller: str) -> bytes:
    return right(turn, caller) + tone(300)


def every_second(turn: int, caller: str) -> bytes:
    return right(turn, caller) if turn % 2 else tone(900)


async def call(reply: Reply) -> LoadRecord:
    caller = LoadCaller(NUMBER, [CLIP], think_frames=0)
    async with StandIn(Behaviour(greeting_ms=200, reply=reply)) as stand_in:  # noqa: SIM117
        async with Exchange(public_url=PUBLIC, local_url=stand_in.url) as exchange, asyncio.TaskGroup() as tasks:
            task = tasks.create_task(exchange.call(caller, from_=NUMBER, to="+15550100"))
            while caller.record.turns_expected < TURNS:
                await asyncio.sleep(0.02)
            caller.stopping = True
            assert (await task).ended_by == "caller"
    return caller.record


@pytest.mark.slow
def test_only_the_right_code_completes_a_turn() -> None:
    # reply -> turns completed, wrong codes, codes of others, damaged codes, answers broken off, answers too long
    expected = {
        right: (3, 0, 0, 0, 0, 0),
        all_but_a_word: (0, 0, 0, 0, 3, 0),
        split: (3, 0, 0, 0, 0, 0),
        other_call: (0, 0, 3, 0, 0, 0),
        other_words: (0, 3, 0, 0, 0, 0),
        repeated: (1, 2, 0, 0, 0, 0),
        damaged: (0, 0, 0, 3, 0, 0),
        to_somebody_else_too: (3, 0, 3, 0, 0, 0),
        wordy: (3, 0, 0, 0, 0, 3),
        every_second: (2, 0, 0, 0, 0, 0),
    }

    async def main() -> list[LoadRecord]:
        async with asyncio.timeout(40):
            return await asyncio.gather(*(call(reply) for reply in expected))

    for (reply, counts), record in zip(expected.items(), uvloop.run(main()), strict=True):
        assert record.turns_expected == TURNS
        found = (record.turns_completed, record.wrong, record.foreign)
        assert (*found, record.damaged, record.broken_off, record.overlong) == counts, reply.__name__
        assert record.is_greeted and not record.in_turn
        assert (record.talked_over, record.unasked_clears) == (0, 0)
        assert len(record.latency_ms) == TURNS
        # The stand-in answers after 20 frames of silence, of which a busy machine sends some in a row.
        assert all(one >= 150 for one in record.latency_ms), (reply.__name__, record.latency_ms)


class Silent:
    """A line on which nothing is sent."""

    def end_utterance(self) -> None:
        """Nobody listens to the playout."""


def steps(caller: LoadCaller, heard: bytes | None, count: int) -> None:
    for _ in range(count):
        caller.step(heard, 0)


def test_an_agent_that_does_not_begin_talks_over_or_clears_for_nothing_is_noticed() -> None:
    greeted, ignored = (LoadCaller(NUMBER, [CLIP], think_frames=0) for _ in range(2))
    loud = tone(20)
    for caller in (greeted, ignored):
        caller.on_start(Silent(), 0)  # type: ignore[arg-type]
    steps(greeted, loud, 10)
    steps(greeted, None, 20)
    steps(ignored, None, 300)
    assert (greeted.record.is_greeted, ignored.record.is_greeted) == (True, False)
    assert greeted.record.in_turn and ignored.record.in_turn and greeted.is_ready and ignored.is_ready
    # The rest of a word before the caller's own, and a sentence into it.
    greeted.on_clear(0)
    steps(greeted, loud, 4)
    steps(greeted, None, CLIP.frames - 5)
    steps(ignored, loud, CLIP.frames - 1)
    assert (greeted.record.talked_over, ignored.record.talked_over) == (0, 1)
    # As long as the caller's own words may have caused it.
    steps(greeted, loud, 50)
    greeted.on_clear(0)
    assert greeted.record.unasked_clears == 0
    steps(greeted, loud, 1)
    greeted.on_clear(0)
    assert greeted.record.unasked_clears == 1


def test_percentiles_are_values_that_occurred() -> None:
    assert percentile([], 0.5) is None
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentiles([float(n) for n in range(1, 101)], with_max=True) == {
        "p50": 50.0,
        "p95": 95.0,
        "p99": 99.0,
        "max": 100.0,
    }


def test_histograms_are_read_and_their_window_taken() -> None:
    text = "\n".join(
        f'own_seconds_bucket{{channel="{channel}",le="{bound}"}} {count}'
        for channel in ("twilio", "browser")
        for bound, count in (("0.001", 10.0), ("0.01", 20.0), ("+Inf", 20.0))
    )
    both = parse_buckets(text, "own_seconds")
    assert both == {0.001: 20.0, 0.01: 40.0, float("inf"): 40.0}
    one = parse_buckets(text, "own_seconds", channel="twilio")
    assert quantile(one, 0.5) == pytest.approx(0.001)
    assert quantile(one, 0.75) == pytest.approx(0.0055)
    assert quantile(subtract(both, both), 0.5) is None


def test_a_table_has_straight_columns() -> None:
    assert table([("", "a"), ("long name", "1"), ("x", "123")]) == "             a\nlong name    1\nx          123"
