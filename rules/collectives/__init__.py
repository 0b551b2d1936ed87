"""Collectives: what two steps of communication are as one."""
