"""From a plan to a program: collectives, buffers, schedule, synchronisation, instructions."""
