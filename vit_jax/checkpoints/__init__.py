"""Our own checkpoints: verified Orbax steps in a folder, and which of them are kept."""
