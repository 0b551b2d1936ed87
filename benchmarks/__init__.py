"""Measurements of the compiler: quality of its results, speed, accuracy of its predictions."""
