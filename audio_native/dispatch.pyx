"""Chooses the instruction set of the kernels when it is imported: "avx2", "sse2" or "c".

The best one that the processor has, unless the environment variable AUDIO_NATIVE_ISA names another; a name that does
not exist or that this processor cannot run is refused, never replaced. All levels compute the same bits
(tests/audio_native run under each), so the choice is about time only.

`AVAILABLE` is what this build and this processor have, best first; `ISA` is the level in use.
"""
import os

cdef extern from "kernel_levels.h":
    int KERNEL_LEVELS
    int kernel_available(const kernel_table** out)

cdef const kernel_table* tables[3]      # KERNEL_LEVELS
cdef int table_count = kernel_available(tables)

cdef tuple _names():
    cdef int i
    names = []
    for i in range(table_count):
        names.append((<bytes>tables[i].name).decode())
    return tuple(names)

AVAILABLE = _names()
ISA = AVAILABLE[0]


def set_isa(str name not None):
    """Use another level from now on, in the whole process: for tests and benchmarks.

    Args:
        name: one of AVAILABLE.
    Raises:
        ValueError: unknown here; the level in use stays.
    Thread: not while another thread runs a kernel with the GIL released.
    """
    global kernels, ISA
    if name not in AVAILABLE:
        known = "this processor cannot run it" if name in ("avx2", "sse2", "c") else "there is no such level"
        raise ValueError(f"instruction set {name!r}: {known}; available: {', '.join(AVAILABLE)}")
    kernels = tables[AVAILABLE.index(name)]
    ISA = name


def _choose():
    wanted = os.environ.get("AUDIO_NATIVE_ISA", "")
    try:
        set_isa(wanted or AVAILABLE[0])
    except ValueError as error:
        raise ImportError(f"AUDIO_NATIVE_ISA: {error}") from None


_choose()
