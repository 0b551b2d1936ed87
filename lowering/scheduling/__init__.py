"""The scheduler core: when tasks run on resources of limited capacity, and how far from optimal that is.

It knows nothing of instructions; `tilewright.lowering.reorder` poses the compiler's problems to it.
"""
