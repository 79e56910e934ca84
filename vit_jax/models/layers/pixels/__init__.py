"""What images go through before they are tokens: their sizes, what a model takes, and cutting into patches."""
