"""Stream (KU Leuven) as a peer: the same models on the same machines, judged by both cost models."""
