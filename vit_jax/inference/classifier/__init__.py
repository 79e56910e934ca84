"""A classifier as scikit-learn has them."""
