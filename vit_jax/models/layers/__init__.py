"""What every family is built of."""
