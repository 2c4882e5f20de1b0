"""Brings memory on that will be needed in a moment; a hint, any address is allowed."""

cdef extern from "fetch.h" nogil:
    void fetch_ahead(const void* at, int lines)
