"""The plain Vision Transformer, and its hybrids."""
