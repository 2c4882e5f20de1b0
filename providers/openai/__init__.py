"""OpenAI, Azure OpenAI and every service that speaks their protocol, by the official SDK."""
