"""Samples in, samples out: the native audio path. Knows no call, no socket and no asyncio."""
