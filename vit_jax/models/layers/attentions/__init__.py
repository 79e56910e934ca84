"""Other kinds of self-attention than the usual one."""
