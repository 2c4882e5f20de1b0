"""audioop, the independent source of G.711, levels and mixing: standard library to 3.12, audioop-lts after it."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

__all__ = ["audioop"]
