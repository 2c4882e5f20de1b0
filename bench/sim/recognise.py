"""A recogniser that hears the words of a book: incremental (`Listener`) or a whole recording (`recognise`).

    with a track (clip and place known): each word is judged when its span has come
    without one:                          sound is looked up in the book; words that came meanwhile are judged then

A lost word loses the track: what follows may have moved. Costs: see bench/README.md.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from bench.sim.clipbook import BLOCK, PER_MS, Clipbook, Word
from bench.sim.clipsearch import WINDOW, Samples

THRESHOLD = 0.8
"""Least correlation of a word with its clip: noise of 5 dB passes, 40 % of its energy missing does not."""
_RUINED_SHARE = 0.25
_RUINED_BELOW = 0.5
_LAGS = 4
_FOUND = 0.55
_ALIKE = 0.02
_KEEP = 10 * 8000
_ROOM = 16 * 8000
_STEP = 800
_SHORTEST = 640
_FLOOR_RMS = 100.0
"""Quieter 20 ms blocks are silence (-50 dBFS)."""


def recognise(book: Clipbook, s16: bytes) -> list[Word]:
    """The words of `book` in a recording (s16, 8000 Hz), in order, with their times."""
    listener = Listener(book)
    return listener.feed(s16) + listener.finish()


class Listener:
    """One stream of samples at 8000 Hz: give it sound, it returns the words that are complete.

    `voice_start_ms`: where the present run of sound began (None in silence). `voice_end_ms`: the end of the last sound,
    0 when there was none. `received_ms`: all that came.
    """

    __slots__ = (
        "_base", "_book", "_consumed", "_end", "_fails", "_heard", "_levels", "_measured", "_next", "_offset",
        "_probed", "_rest", "_rx", "_search_from", "_track", "voice_end_ms", "voice_start_ms",
    )  # fmt: skip

    def __init__(self, book: Clipbook) -> None:
        self._book = book
        self._rx = np.zeros(_ROOM, np.float32)
        self._base, self._end = -BLOCK, 0  # of the samples in _rx, in the stream; silence before it
        self._measured = 0
        self._consumed = 0  # all before has been heard
        self._search_from = 0
        self._probed = 0
        self._fails = 0
        self._track = self._heard = -1
        self._offset = self._next = 0
        self._levels: deque[float] = deque(maxlen=100)
        self._rest = b""
        self.voice_start_ms: float | None = None
        self.voice_end_ms = 0.0

    @property
    def received_ms(self) -> float:
        return self._end / PER_MS

    def feed(self, s16: bytes) -> list[Word]:
        """Take any number of bytes; an odd one waits for its other half."""
        if self._rest or len(s16) % 2:
            s16 = self._rest + s16
            self._rest = s16[len(s16) // 2 * 2 :]
            s16 = s16[: len(s16) // 2 * 2]
        samples = np.frombuffer(s16, "<i2")
        words: list[Word] = []
        for at in range(0, samples.size, _STEP):
            self._append(samples[at : at + _STEP])
            words += self._advance()
        return words

    @property
    def language(self) -> str:
        """Of the clip that was heard last, "" before or when it has none."""
        return self._book.clips[self._heard].language if self._heard >= 0 else ""

    def settle(self) -> list[Word]:
        """Nothing more belongs to this turn: the words that are complete, without waiting for silence."""
        return self._look_up(is_over=True) if self._track < 0 and self._book.clips else []

    def finish(self) -> list[Word]:
        """The stream is over: the words that silence would complete."""
        end = self._end
        words = self.feed(bytes(2 * (BLOCK * 6)))
        self._end = end
        return words

    def _append(self, samples: np.ndarray) -> None:
        used = self._end - self._base
        if used + samples.size > _ROOM:
            self._rx[:_KEEP] = self._rx[used - _KEEP : used]
            self._base = self._end - _KEEP
            used = _KEEP
        self._rx[used : used + samples.size] = samples
        self._end += samples.size

    def _advance(self) -> list[Word]:
        self._measure()
        words: list[Word] = []
        while self._track >= 0:
            clip = self._book.clips[self._track]
            if self._next >= len(clip.words):
                self._search_from = self._probed = self._offset + len(clip.s16) // 2
                self._track, self._fails = -1, 0
                break
            word = clip.words[self._next]
            if self._end < self._offset + int(word.end_ms * PER_MS) + _LAGS:
                break
            self._next += 1
            heard = self._judge(word, self._offset)
            if heard is None:
                self._track, self._probed = -1, 0
            else:
                words.append(heard)
        if self._track < 0 and self._book.clips:
            words += self._look_up(is_over=self._end - int(self.voice_end_ms * PER_MS) >= 3 * BLOCK)
        return words

    # ── Sound and silence ─────────────────────────────────────────────────────────────────────────────────────────

    def _measure(self) -> None:
        count = (self._end - self._measured) // BLOCK
        if not count:
            return
        low = self._measured - self._base
        blocks = self._rx[low : low + count * BLOCK].reshape(count, BLOCK)
        for level in np.sqrt(np.einsum("ij,ij->i", blocks, blocks) / BLOCK).tolist():
            self._measured += BLOCK
            self._levels.append(level)
            # Steady noise is no speech: what never gets quieter is taken for the floor.
            floor = min(self._levels) if len(self._levels) > 25 else 0.0
            now_ms = self._measured / PER_MS
            if level >= max(_FLOOR_RMS, 2.5 * floor):
                if self.voice_start_ms is None:
                    self.voice_start_ms = now_ms - 20
                self.voice_end_ms = now_ms
            elif self.voice_start_ms is not None and now_ms - self.voice_end_ms >= 200:
                self.voice_start_ms = None

    # ── Words ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _judge(self, word: Word, offset: int) -> Word | None:
        """The word with its time in the stream, when its samples arrived undamaged."""
        first, last = int(word.start_ms * PER_MS), int(word.end_ms * PER_MS)
        low = offset + first - _LAGS - self._base
        high = offset + last + _LAGS - self._base
        if low < 0 or high > self._end - self._base or last - first < BLOCK // 2:
            return None
        got = self._rx[low:high]
        size = last - first
        sums = np.concatenate(([0.0], np.cumsum(got.astype(np.float64) ** 2)))
        norms = np.sqrt(np.maximum(sums[size:] - sums[: 2 * _LAGS + 1], 1.0))
        best, lag, ref = 0.0, 0, got
        for shape in self._book.shapes[self._track]:
            part = shape[first:last]
            scores = np.correlate(got, part, "valid") / norms
            at = int(np.argmax(scores))
            score = float(scores[at]) / (float(np.sqrt(np.dot(part, part))) + 1e-9)
            if score > best:
                best, lag, ref = score, at, part
        # A short vowel is like many others.
        least = THRESHOLD + 0.1 * max(0.0, 1 - size / (200 * PER_MS))
        if best < least or _ruined(got[lag : lag + size], ref) > _RUINED_SHARE:
            return None
        if offset == self._offset and abs(lag - _LAGS) <= 2:
            self._offset += lag - _LAGS
        start = offset + first + lag - _LAGS
        self._consumed = start + size
        self._heard = self._track
        self.voice_end_ms = max(self.voice_end_ms, self._consumed / PER_MS)
        return Word(word.text, start / PER_MS, self._consumed / PER_MS)

    def _look_up(self, is_over: bool) -> list[Word]:
        """Look for the clip that sounds now; the words that have come since the last heard one are judged at once.

        `is_over`: nothing follows, look at what there is, however short.
        """
        end = min(self._end, int(self.voice_end_ms * PER_MS))
        start = max(end - WINDOW, self._search_from, self._base)
        patience = 1 if is_over else (2000, 4000, 8000)[min(self._fails // 3, 2)]
        if end - start < (_SHORTEST if is_over else WINDOW // 2) or end < self._probed + patience:
            return []
        self._probed = end
        places = self._book.search.find(self._rx[start - self._base : end - self._base])
        if not places or places[0].score < _FOUND:
            self._fails += 1
            return []
        self._fails = 0
        # Two sentences may begin alike: what follows tells them apart, also after a pause.
        is_open = any(one.clip != places[0].clip and one.score > places[0].score - _ALIKE for one in places)
        if is_open and not is_over:
            return []
        words = self._take(places[0].clip, start - places[0].at)
        if is_open:
            self._track, self._probed = -1, 0
        return words

    def _take(self, track: int, offset: int) -> list[Word]:
        self._track, self._offset, self._next = track, offset, 0
        words = []
        for word in self._book.clips[track].words:
            if self._end < self._offset + int(word.end_ms * PER_MS) + _LAGS:
                break
            self._next += 1
            if self._offset + int(word.start_ms * PER_MS) < self._consumed - BLOCK:
                continue
            heard = self._judge(word, self._offset)
            if heard is not None:
                words.append(heard)
        return words


def _ruined(got: Samples, ref: Samples) -> float:
    """The share of a word's audible blocks that are not what was spoken."""
    count = got.size // BLOCK
    if count < 2:
        return 0.0
    mine, theirs = got[: count * BLOCK].reshape(count, BLOCK), ref[: count * BLOCK].reshape(count, BLOCK)
    power = np.einsum("ij,ij->i", theirs, theirs)
    audible = power >= 0.02 * power.max()
    match = np.einsum("ij,ij->i", mine, theirs)
    norms = np.sqrt(power * np.einsum("ij,ij->i", mine, mine)) + 1e-9
    return float(np.count_nonzero((match / norms < _RUINED_BELOW) & audible) / max(1, np.count_nonzero(audible)))
