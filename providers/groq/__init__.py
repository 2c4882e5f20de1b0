"""Groq by its official SDK; the protocol's core is providers.openai."""
