"""What frozen features are worth: k nearest neighbours, logistic regression."""

from kmlp.training.probing.probing import run

__all__ = ["run"]
