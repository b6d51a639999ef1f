"""Trained networks as they lie on a disk: what they are and where they come from."""
