"""What masked image modelling has in common, whatever is predicted."""
