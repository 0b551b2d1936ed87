"""SET (ISCA 2023) as a peer: its three-term cost as a metric, its networks on its machine."""
