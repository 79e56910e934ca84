"""Hiera, a hierarchical Vision Transformer without the bells and whistles."""
