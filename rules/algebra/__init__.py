"""Algebra: other ways to write the same value."""
