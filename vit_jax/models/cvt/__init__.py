"""The Convolutional vision Transformer."""
