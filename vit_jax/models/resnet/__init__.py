"""The residual network, a teacher of Vision Transformers."""
