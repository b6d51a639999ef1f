"""Runs that cannot be lost: their folder, their checkpoints, their loop."""
