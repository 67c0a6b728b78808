"""Checkpoints shipped with the package, and look-up by name or folder."""
