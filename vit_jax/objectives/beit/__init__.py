"""Masked image modelling of discrete tokens (Bao et al. 2021, arXiv 2106.08254)."""
