"""Executors of program files: functional (values) and timing (cycles)."""
