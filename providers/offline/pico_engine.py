"""SVOX Pico through the C functions inside the package `ttspico==0.3.2`.

The package's own Python binding is not used: it loses one reference to every block of audio (measured: 118 KiB of RSS a
sentence, for ever). Its shared object exports the C engine, which ctypes calls without the GIL.

Safety: a `<` in the text starts Pico's markup, and an unclosed tag crashed the process; more than about 50 digits in a
row made it give up. `clean` keeps both away, and nothing else may hand text to `PicoEngine.speak`.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from providers.errors import ProviderUnavailable

RATE_HZ = 16000
PACKAGE = "ttspico"
INSTALL = "pip install ttspico==0.3.2"
# Language -> Pico's volume (100 is its own, which clips): measured to give -20 dBFS +- 1 over active speech.
VOLUMES = {"en-US": 32, "en-GB": 30, "es-ES": 27, "de-DE": 29, "fr-FR": 31, "it-IT": 35}
PIECE_CHARS = 300  # about 20 s of speech, rendered in 0.15 s: what one cancelled piece can waste
WORD_CHARS = 60

_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_bool,
    ctypes.c_void_p,  # user
    ctypes.c_uint32,  # rate, always 16000
    ctypes.c_uint32,  # bits
    ctypes.c_int,  # channels
    ctypes.c_void_p,  # audio, the engine's own buffer
    ctypes.c_uint32,  # bytes
    ctypes.c_bool,  # last
)
_DIGITS = re.compile(r"\d{10,}")
_LONG_WORD = re.compile(rf"\S{{{WORD_CHARS}}}(?=\S)")
_UNSPEAKABLE = re.compile(r"[<>\x00-\x1f\x7f\ud800-\udfff]")


def clean(text: str) -> str:
    """`text` without what Pico takes for markup or cannot digest; the words stay."""
    text = _UNSPEAKABLE.sub(" ", text)
    text = _DIGITS.sub(lambda run: " ".join(run[0]), text)
    return " ".join(_LONG_WORD.sub(lambda word: word[0] + " ", text).split())


def pieces(text: str) -> Iterator[str]:
    """Cut cleaned text into at most PIECE_CHARS characters, after a sentence, a comma or a word."""
    while len(text) > PIECE_CHARS:
        head = text[:PIECE_CHARS]
        ends = [head.rfind(mark) + 1 for mark in (". ", "! ", "? ", "; ", ": ", ", ")]
        cut = max(ends)
        if cut < PIECE_CHARS // 3:
            cut = head.rfind(" ") + 1 or PIECE_CHARS
        yield text[:cut].strip()
        text = text[cut:].strip()
    if text:
        yield text


class PicoEngine:
    """One voice. Thread: one at a time; `stop` may come from any while `speak` runs.

    Args:
        language: a key of VOLUMES.
    Raises:
        ProviderUnavailable: the package or the voice is missing.
    """

    __slots__ = ("_callback", "_handle", "_sink", "language")

    def __init__(self, language: str) -> None:
        self.language = language
        self._sink: Callable[[bytes], bool] | None = None
        self._callback = _CALLBACK(self._on_audio)  # kept: C holds a plain pointer to it
        folder = f"{_voices()}/".encode()
        self._handle: int | None = _library().TtsEngine_Create(folder, language.encode(), self._callback)
        if not self._handle:
            raise ProviderUnavailable(f"no voice {language}; run: {INSTALL}", provider="pico")

    def speak(
        self, text: str, sink: Callable[[bytes], bool], *, rate_percent: int = 0, pitch_percent: int = 0, volume: int
    ) -> bool:
        """Render `text`; blocks for about 0.7 % of its duration.

        Args:
            text: from `clean`, at most PIECE_CHARS.
            sink: gets s16 blocks of at most 4 s; answers False to stop.
            rate_percent, pitch_percent: relative to the voice. volume: Pico's, see VOLUMES.
        Returns:
            False when Pico gave up; the engine should then be closed.
        """
        library = _library()
        library.TtsEngine_SetRate(self._handle, 100 + rate_percent)
        library.TtsEngine_SetPitch(self._handle, 100 + pitch_percent)
        library.TtsEngine_SetVolume(self._handle, volume)
        self._sink = sink
        try:
            return bool(library.TtsEngine_Speak(self._handle, text.encode(), None))
        finally:
            self._sink = None

    def stop(self) -> None:
        _library().TtsEngine_Stop(self._handle)

    def close(self) -> None:
        """Free 3 MiB. May be called twice, never while `speak` runs."""
        if self._handle:
            _library().TtsEngine_Destroy(self._handle)
            self._handle = None

    def _on_audio(
        self, user: int, rate_hz: int, bits: int, channels: int, audio: int, size_bytes: int, last: bool
    ) -> bool:
        # Safety: `audio` holds size_bytes until we return; string_at copies.
        if size_bytes == 0 or self._sink is None:
            return True
        return self._sink(ctypes.string_at(audio, size_bytes))


def _library() -> ctypes.CDLL:
    if _loaded:
        return _loaded[0]
    found = importlib.util.find_spec("ctts")
    if found is None or found.origin is None:
        raise ProviderUnavailable(f"{PACKAGE} is not installed; run: {INSTALL}", provider="pico")
    library = ctypes.CDLL(found.origin)
    engine = ctypes.c_void_p
    for name, result, arguments in (
        ("Create", engine, [ctypes.c_char_p, ctypes.c_char_p, _CALLBACK]),
        ("Destroy", None, [engine]),
        ("Speak", ctypes.c_bool, [engine, ctypes.c_char_p, ctypes.c_void_p]),
        ("Stop", None, [engine]),
        ("SetRate", ctypes.c_int, [engine, ctypes.c_int]),
        ("SetPitch", ctypes.c_int, [engine, ctypes.c_int]),
        ("SetVolume", ctypes.c_int, [engine, ctypes.c_int]),
    ):
        function = getattr(library, f"TtsEngine_{name}")
        function.restype = result
        function.argtypes = arguments
    _loaded.append(library)
    return library


_loaded: list[ctypes.CDLL] = []


def _voices() -> Path:
    """The folder with the voice files: beside the package, or where data files of old sdists go."""
    for file in importlib.metadata.files(PACKAGE) or []:
        if file.name == "en-US_ta.bin":
            return Path(str(file.locate())).resolve().parent
    return Path(sys.prefix) / "languages"
