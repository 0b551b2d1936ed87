"""An independent check of the bounds that plans carry, from their certificates."""
