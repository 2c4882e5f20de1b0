"""Records and state: spool, PostgreSQL, Redis."""
