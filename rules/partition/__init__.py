"""Partition: implementations of e-nodes on the mesh."""
