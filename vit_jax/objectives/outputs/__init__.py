"""How predictions are written and drawn: one file for each kind of them, `base` says what they have in common."""
