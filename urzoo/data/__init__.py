"""Data sets by name: where the bytes come from, splits and their digests. Knows no model."""
