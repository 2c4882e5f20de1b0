"""How well the server takes turns: `python -m bench turns`."""
