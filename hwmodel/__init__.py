"""Hardware descriptions, cost model and bounds."""
