"""Swin Transformers, both versions."""
