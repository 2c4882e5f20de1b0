"""Media time: where in the stream a payload begins, reckoned from the carrier's timestamps.

    carrier's ms ──► ahead of our samples? ──► samples of silence that belong before the payload

Time is the number of samples stored, silence that was filled in included; the carrier's clock only says how much is
missing. A carrier that jumps, stands still or counts backwards costs at most GAP_MAX_MS of silence at a time.
"""
from libc.stdint cimport int64_t, uint64_t

cdef enum:
    GAP_MAX_MS = 10000
    # Timestamps ahead of the samples by more than the window of reordering, with no chunk missing: the carrier sent
    # nothing in silence. Less than that is jitter of the carrier's clock.
    PAUSE_MIN_MS = 60
    # Timestamps that far behind began anew.
    BEHIND_MAX_MS = 1000
    # Chunks that are counted into samples where timestamps do not tell; far beyond GAP_MAX_MS.
    CHUNKS_MAX = 10000
    # A year, and far below what overflows when multiplied by the rate.
    TIMESTAMP_MAX_MS = 40000000000

cdef struct media_time:
    int64_t rate_hz
    int64_t origin          # of the carrier's time: position * 1000 - timestamp_ms * rate_hz
    int64_t last_ms         # timestamp of the payload that was stored last
    int64_t last_samples    # its length


# The carrier's time and ours agree now.
cdef inline void time_anchor(media_time* time, int64_t timestamp_ms, uint64_t position) noexcept nogil:
    time.origin = <int64_t>(position * 1000) - timestamp_ms * time.rate_hz


# The timestamp, or the last one where it cannot be meant.
cdef inline int64_t time_checked(const media_time* time, uint64_t timestamp_ms) noexcept nogil:
    return time.last_ms if timestamp_ms > TIMESTAMP_MAX_MS else <int64_t>timestamp_ms


# How far the carrier is ahead of `position`, in thousandths of a sample, so that frames which are no whole
# milliseconds do not drift.
cdef inline int64_t time_ahead(const media_time* time, int64_t timestamp_ms, uint64_t position) noexcept nogil:
    return timestamp_ms * time.rate_hz + time.origin - <int64_t>(position * 1000)


# With no chunk missing: whether the timestamps alone say that something is.
cdef inline bint time_is_off(const media_time* time, int64_t ahead) noexcept nogil:
    return ahead > PAUSE_MIN_MS * time.rate_hz or ahead < -BEHIND_MAX_MS * time.rate_hz


# Samples of silence that belong before a payload with `missing_chunks` missing before it.
cdef inline int64_t time_missing(
    const media_time* time, int64_t timestamp_ms, int64_t ahead, uint64_t missing_chunks
) noexcept nogil:
    cdef int64_t missing = 0
    if missing_chunks and timestamp_ms <= time.last_ms:
        # Timestamps that do not tell: as many samples as the last message had.
        missing = <int64_t>min(missing_chunks, <uint64_t>CHUNKS_MAX) * time.last_samples
    elif ahead > 0:
        missing = ahead // 1000
    return min(missing, GAP_MAX_MS * time.rate_hz // 1000)


# After that silence: more was missing than is filled, or their time began anew. From here on they agree again.
cdef inline void time_settle(media_time* time, int64_t timestamp_ms, uint64_t position) noexcept nogil:
    cdef int64_t ahead = time_ahead(time, timestamp_ms, position)
    if ahead >= 1000 or ahead < -BEHIND_MAX_MS * time.rate_hz:
        time_anchor(time, timestamp_ms, position)
