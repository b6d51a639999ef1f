"""What frozen features are worth: k nearest neighbours, logistic regression."""

from training.probing.job import run

__all__ = ["run"]
