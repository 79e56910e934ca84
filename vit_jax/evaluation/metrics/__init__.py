"""Metrics of a whole set, on the host: NumPy alone, so that objectives can name them."""
