"""`python -m bench demo`."""

from bench.demo.run import main

__all__ = ["main"]
