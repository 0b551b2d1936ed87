"""The simulators against figures that others measured or computed."""
