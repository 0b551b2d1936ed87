"""Memory: where weights and values may lie."""
