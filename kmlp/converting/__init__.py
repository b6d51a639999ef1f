"""Published checkpoints as `.keras` files, with what became of every array."""

from kmlp.converting.job import convert

__all__ = ["convert"]
