"""Top-1 and top-5 of trained weights, in whatever form they are."""

from training.evaluation.job import run

__all__ = ["run"]
