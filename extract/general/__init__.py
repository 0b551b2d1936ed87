"""Extraction from any e-graph: the cheapest acyclic choice of e-nodes, with a bound."""
