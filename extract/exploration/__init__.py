"""Exploring: alternatives with their price, demands on a plan, and why a plan is as it is."""
