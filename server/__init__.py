"""Talkspurt: answers and places phone calls with an AI agent."""
