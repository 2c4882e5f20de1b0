"""Carrier messages <-> media events, without I/O, clock or asyncio. One module a carrier, one form for all."""
