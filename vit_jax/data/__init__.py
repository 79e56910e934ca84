"""Images from where they lie to batches: sources, transforms, pipelines. NumPy lives here."""
