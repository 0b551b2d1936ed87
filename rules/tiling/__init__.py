"""Tiling: how the loops of a kernel may be cut."""
