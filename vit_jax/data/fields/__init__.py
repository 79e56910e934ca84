"""The named fields of a record: what each kind must be, and how it follows the image."""
