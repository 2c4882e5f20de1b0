"""Tools of agents, carried out by HTTP: where they may be, how they are called, what stays on record."""
