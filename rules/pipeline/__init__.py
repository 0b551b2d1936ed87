"""Pipeline legality: where a model may be cut, what may be split into micro-batches or computed again."""
