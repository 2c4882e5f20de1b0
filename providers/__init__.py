"""Speech and language services: each streams, each can be cancelled. Knows no call and no carrier."""
