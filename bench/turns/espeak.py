"""eSpeak NG by the library that the package espeakng-loader carries: speakers by voice and variant ("es-419+f2")."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

SYNCHRONOUS = 2
UTF8 = 1
POSITION_CHARACTER = 1


class Espeak:
    """One engine; a process has one. `speak` gives s16 at `rate_hz`. Raises OSError where the library does not load."""

    def __init__(self, cache: Path) -> None:
        folder = cache / "espeakng-loader" / "espeakng_loader"
        self._library: Any = ctypes.CDLL(str(folder / "libespeak-ng.so"))
        self.rate_hz = int(self._library.espeak_Initialize(SYNCHRONOUS, 0, str(folder / "espeak-ng-data").encode(), 0))
        if self.rate_hz <= 0:
            raise OSError(f"eSpeak NG does not start with the data in {folder}")
        self._heard: list[bytes] = []
        form = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        self._callback = form(self._take)  # kept: the library calls it as long as it lives
        self._library.espeak_SetSynthCallback(self._callback)

    def speak(self, text: str, voice: str) -> bytes:
        """Raises ValueError: no such voice, or nothing was rendered."""
        self._heard.clear()
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise ValueError(f"eSpeak NG has no voice {voice!r}")
        said = text.encode()
        self._library.espeak_Synth(said, len(said) + 1, 0, POSITION_CHARACTER, 0, UTF8, None, None)
        self._library.espeak_Synchronize()
        if not self._heard:
            raise ValueError(f"eSpeak NG rendered nothing for {text!r}")
        return b"".join(self._heard)

    def _take(self, wave: int | None, samples: int, events: int | None) -> int:
        if wave and samples > 0:
            self._heard.append(ctypes.string_at(wave, 2 * samples))
        return 0
