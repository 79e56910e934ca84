"""Checkpoints of OpenAI."""
