"""One live call: the pure cores wired to sockets, providers and the store."""
