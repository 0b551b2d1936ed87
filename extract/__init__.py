"""Read-out of the e-graph, cost-driven extraction with bounds, plans and their validator."""
