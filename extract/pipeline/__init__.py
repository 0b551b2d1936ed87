"""Pipelines: where a model is cut into stages, and which tiles run each."""
