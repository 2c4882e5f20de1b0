"""What the folder of captures may take of the disk. How one call is captured is an agent's setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from server.config.read import Fields, check_range, read, whole

VARIABLES: tuple[str, ...] = ("CAPTURE_MAX_TOTAL_BYTES", "CAPTURE_MAX_DAYS", "CAPTURE_MIN_FREE_BYTES")

GIB = 1 << 30
MOST_BYTES = 10**15


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureConfig:
    max_total_bytes: int = 10 * GIB  # of all captures; a minute takes 40 KB, with audio 500: 170 days or 14 of one line
    max_days: int = 7  # as long as it takes until somebody asks what went wrong in a call
    min_free_bytes: int = 1 * GIB  # of the disk, for the spool and PostgreSQL; below it no new capture begins

    def __post_init__(self) -> None:
        check_range("CAPTURE_MAX_TOTAL_BYTES", self.max_total_bytes, 1 << 20, MOST_BYTES)
        check_range("CAPTURE_MAX_DAYS", self.max_days, 1, 3650)
        check_range("CAPTURE_MIN_FREE_BYTES", self.min_free_bytes, 0, MOST_BYTES)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> CaptureConfig:
        fields: Fields = {
            "max_total_bytes": ("CAPTURE_MAX_TOTAL_BYTES", whole),
            "max_days": ("CAPTURE_MAX_DAYS", whole),
            "min_free_bytes": ("CAPTURE_MIN_FREE_BYTES", whole),
        }
        return cls(**read(env, fields))
