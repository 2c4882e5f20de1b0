"""One stream's payloads in the order of their chunk numbers, for Uplink without a Python call."""
from libc.stdint cimport uint8_t, uint64_t

cdef enum:
    # An RTP stream of 20 ms frames within a 60 ms window holds three; more slots than this are refused.
    SLOTS_MAX = 16

    # What `Order.place` says of a payload that is not simply the next one.
    NOT_NOW = 0     # dropped, or held
    NOW = 1         # it is stored next
    ANEW = 2        # it is stored next, and the carrier's numbers and time began anew with it

cdef class Order:
    cdef uint64_t next_chunk        # 0: nothing has been stored yet
    cdef list held                  # [(chunk, timestamp_ms, payload)], sorted
    cdef int _slots, _strays
    cdef bint _is_waiting           # payloads wait for a missing one
    cdef uint64_t _last_stray
    cdef uint64_t _gap_end          # no number from here on was given up
    cdef uint64_t _gaps             # bit n: the number _gap_end - 1 - n was given up, and has not come since
    cdef readonly uint64_t duplicates, given_up, late, reordered, astray

    cdef int place(self, const uint8_t* coded, Py_ssize_t size, uint64_t chunk, uint64_t timestamp_ms) except -1
    # The held payload whose turn it is; None when all that are held may wait, `at_end` none may.
    cdef tuple pop(self, bint at_end)
    cdef int _place_passed(self, uint64_t chunk) except -1
    cdef int _count_anew(self, uint64_t chunk) except -1
    cdef void _give_up(self, uint64_t chunk) noexcept
    cdef void _drop_astray(self, uint64_t chunk)


# Whether `chunk` is the next one and nothing waits: what nearly all are, and `place` need not be asked.
cdef inline bint is_next(Order order, uint64_t chunk) noexcept:
    if chunk != order.next_chunk or order.held:
        return False
    order._strays = 0
    return True
