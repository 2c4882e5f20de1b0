"""Makes the regression captures: `python -m bench captures`."""

from bench.captures.run import main

__all__ = ["main"]
