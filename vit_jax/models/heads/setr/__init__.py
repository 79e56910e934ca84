"""The decoders of SETR."""
