"""Fusion: several operators as one kernel; the unfused ones stay as alternatives."""
